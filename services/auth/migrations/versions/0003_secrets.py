"""Users' secrets, sealed."""

from alembic import op

from services.auth import tables
from shared.runtime.migrating import create_tables, drop_tables

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    create_tables(op.get_bind(), tables.secrets)


def downgrade() -> None:
    """The secrets are gone: their owners set them again."""
    drop_tables(op.get_bind(), tables.secrets)
