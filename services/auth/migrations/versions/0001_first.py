"""Signing keys, principals with their memberships, the first form of the audit log; and the runtime's tables."""

from alembic import op

from services.auth import tables
from services.auth.migrations.first_audit import first_audit
from shared.runtime.migrating import create_tables, drop_tables

revision = "0001"
down_revision = None

FIRST = (tables.signing_keys, tables.principals, tables.memberships, *tables.runtime.all)


def upgrade() -> None:
    create_tables(op.get_bind(), *FIRST)
    create_tables(op.get_bind(), first_audit)


def downgrade() -> None:
    drop_tables(op.get_bind(), first_audit)
    drop_tables(op.get_bind(), *FIRST)
