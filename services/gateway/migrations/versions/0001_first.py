"""Jobs, labels, idempotency keys, the event log with its state, holes; and the runtime's tables."""

from alembic import op

from services.gateway.store import TABLES, runtime
from shared.runtime.migrating import create_tables, drop_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_tables(op.get_bind(), *TABLES, *runtime.all)


def downgrade() -> None:
    drop_tables(op.get_bind(), *TABLES, *runtime.all)
