"""Subscriptions of readers outside of the platform."""

from alembic import op

from services.gateway.store import subscriptions
from shared.runtime.migrating import create_tables, drop_tables

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_tables(op.get_bind(), subscriptions)


def downgrade() -> None:
    drop_tables(op.get_bind(), subscriptions)
