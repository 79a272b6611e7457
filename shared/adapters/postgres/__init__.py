"""The Store on PostgreSQL, 13 or newer, with psycopg 3. See `store.py`; `throwaway.py` starts a server for a while."""

from shared.adapters.postgres.connecting import Limits
from shared.adapters.postgres.store import PostgresStore, open_store

__all__ = ["Limits", "PostgresStore", "open_store"]
