"""The tables of auth. Times are Unix microseconds; private keys come here sealed; an audit row names its forerunner."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

from shared.runtime.tables import RuntimeTables

metadata = MetaData()
runtime = RuntimeTables(metadata)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("sealed", Text, nullable=False),
    Column("signs_from", BigInteger, nullable=False),
)
principals = Table(
    "principals",
    metadata,
    Column("issuer", String(512), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("platform_roles", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Index("principals_age", "seen_at"),
)
memberships = Table(
    "memberships",
    metadata,
    Column("issuer", String(512), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("vo", String(255), primary_key=True),
    Column("role", String(32), nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Index("memberships_age", "seen_at"),
)
assurances = Table(
    "assurances",
    metadata,
    Column("issuer", String(512), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("said", Text, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Index("assurances_age", "seen_at"),
)
"""`said`: the values of `eduperson_assurance` (REFEDS RAF) that a principal's issuer gave last, as a JSON list."""
audit = Table(
    "audit_log",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("question", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("issuer", String(512), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("verb", String(64), nullable=False),
    Column("vo", String(255)),
    Column("allowed", Boolean, nullable=False),
    Column("code", String(64), nullable=False),
    Column("items", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Index("audit_log_age", "at"),
    Index("audit_log_who", "issuer", "subject", "at"),
)
audit_ends = Table(
    "audit_ends",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)
"""`head`: the newest row of the chain. `anchor`: the last row dropped for its age; the chain begins behind it."""
suspensions = Table(
    "suspensions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("issuer", String(512), nullable=False),
    Column("value", String(512), nullable=False),
    Column("vo", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("stop_running", Boolean, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("lifted_by", Text),
    Column("lifted_at", BigInteger),
    Index("suspensions_alive", "lifted_at", "made_at"),
)
policies = Table(
    "policies",
    metadata,
    Column("vo", String(255), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Column("written_by", Text, nullable=False),
    Column("written_at", BigInteger, nullable=False),
)
secrets = Table(
    "secrets",
    metadata,
    Column("issuer", String(512), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("vo", String(255), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("key_id", String(16), nullable=False),
    Column("box", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Index("secrets_key", "key_id"),
)
"""Users' secrets: `box` is sealed (`secret_box.py`), `size` the bytes of what is in it."""
trust = Table(
    "trust",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("version", BigInteger, nullable=False),
)
"""One row `trust`: its version grows with every change that others must hear of within seconds."""

TABLES: Final = (
    signing_keys, principals, memberships, assurances, audit, audit_ends, suspensions, policies, secrets, trust,
)  # fmt: skip
