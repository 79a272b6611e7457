"""Suspensions, policies, assurances, and the audit log as a chain; what the old log held is its beginning."""

import sqlalchemy as sa
from alembic import op

from services.auth import audit, tables
from services.auth.audit import GENESIS, End
from services.auth.migrations.first_audit import first_audit
from shared.runtime.migrating import create_tables, drop_tables

revision = "0002"
down_revision = "0001"

NEW = (
    tables.audit, tables.audit_ends, tables.suspensions, tables.policies, tables.trust, tables.assurances,
)  # fmt: skip
_PAGE = 500


def upgrade() -> None:
    connection = op.get_bind()
    create_tables(connection, *NEW)
    connection.execute(sa.insert(tables.trust), {"name": "trust", "version": 1})
    head = _chain_old_rows(connection)
    ends = [{"name": "anchor", "position": 0, "hash": GENESIS},
            {"name": "head", "position": head.position, "hash": head.hash}]  # fmt: skip
    connection.execute(sa.insert(tables.audit_ends), ends)
    op.drop_table("audit")


def _chain_old_rows(connection: sa.Connection) -> End:
    old = sa.table("audit", *(sa.column(name) for name in (
        "position", "question", "at", "issuer", "subject", "verb", "vo", "allowed", "code", "items",
    )))  # fmt: skip
    head, after = End(0, GENESIS), 0
    while True:
        query = sa.select(old).where(old.c.position > after).order_by(old.c.position).limit(_PAGE)
        rows = [dict(row._mapping) for row in connection.execute(query)]
        if not rows:
            return head
        after = rows[-1]["position"]
        for row in rows:
            record = {**row, "allowed": bool(row["allowed"]), "kind": "grant", "detail": ""}
            chained = audit.chained(record, head)
            head = End(chained["position"], chained["hash"])
            connection.execute(sa.insert(tables.audit), chained)


def downgrade() -> None:
    """The chain is given up, and with it what was written down: the old log begins anew."""
    drop_tables(op.get_bind(), *NEW)
    create_tables(op.get_bind(), first_audit)
