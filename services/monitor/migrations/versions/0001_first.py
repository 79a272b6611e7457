"""Attempts, checkpoints, what is owed and kept, sites; and the runtime's tables."""

from alembic import op

from services.monitor import store
from shared.runtime.migrating import create_tables, drop_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_tables(op.get_bind(), *store.TABLES, *store.runtime.all)


def downgrade() -> None:
    drop_tables(op.get_bind(), *store.TABLES, *store.runtime.all)
