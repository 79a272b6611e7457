"""The audit log as version 0001 had it, for the versions that make it and take it away."""

import sqlalchemy as sa

first_audit = sa.Table(
    "audit",
    sa.MetaData(),
    sa.Column("position", sa.Integer().with_variant(sa.BigInteger, "postgresql"), primary_key=True, autoincrement=True),
    sa.Column("question", sa.String(64), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("issuer", sa.String(512), nullable=False),
    sa.Column("subject", sa.String(255), nullable=False),
    sa.Column("verb", sa.String(64), nullable=False),
    sa.Column("vo", sa.String(255)),
    sa.Column("allowed", sa.Boolean, nullable=False),
    sa.Column("code", sa.String(64), nullable=False),
    sa.Column("items", sa.Integer, nullable=False),
    sa.Index("audit_age", "at"),
    sa.Index("audit_who", "issuer", "subject", "at"),
)
