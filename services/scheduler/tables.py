"""The scheduler's tables. Ids are String(36), times Unix microseconds, documents JSON text."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text

from shared.runtime.tables import RuntimeTables

metadata = MetaData()
runtime = RuntimeTables(metadata)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("vo", String(255), nullable=False),
    Column("owner_issuer", String(512), nullable=False),
    Column("owner_subject", String(255), nullable=False),
    Column("owner_name", String(255), nullable=False),
    Column("spec", Text, nullable=False),
    Column("shape", String(24), nullable=False),
    Column("state", String(16), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("precedence", Integer, nullable=False),
    Column("turn", BigInteger, nullable=False),
    Column("retries_used", Integer, nullable=False),
    Column("submitted_at", BigInteger, nullable=False),
    Column("waiting_since", BigInteger, nullable=False),
    Column("phase_since", BigInteger, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("reason", Text),
    Column("reason_code", String(48)),
    Column("told_at", BigInteger, nullable=False),
    Column("avoid", Text),
    Column("cancel_requested_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("exit_code", Integer),
    Column("client", String(255), nullable=False),
    Column("token_id", String(255), nullable=False),
    Column("millicores", Integer, nullable=False),
    Index("jobs_queue", "state", "precedence", "turn", "id"),
    Index("jobs_turn", "state", "precedence", "owner_subject", "owner_issuer", "turn"),
    Index("jobs_told", "state", "reason_code", "told_at"),
    Index("jobs_shape", "state", "shape", "reason_code"),
    Index("jobs_due", "due_at"),
    Index("jobs_ended", "ended_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("site", String(63), nullable=False),
    Column("cluster", String(255), nullable=False),
    Column("namespace", String(128), nullable=False),
    Column("nonce", String(64), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("cpu_mhz", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("disk_mib", Integer, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("gpu_model", String(64)),
    Column("standing", String(16), nullable=False),
    Column("registered", Boolean, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("giving_up", String(16)),
    Column("node", String(255)),
    Column("seen", Integer, nullable=False),
    Column("outcome", Text),
    Column("placed_at", BigInteger, nullable=False),
    Column("starting_at", BigInteger),
    Column("running_at", BigInteger),
    Column("disconnected_at", BigInteger),
    Column("closing_at", BigInteger),
    Column("nothing_left_at", BigInteger),
    Column("ended_at", BigInteger),
    Index("attempts_standing", "standing", "site"),
)

owed = Table(
    "owed",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("call", String(8), primary_key=True),
    Column("cluster", String(255), nullable=False),
    Column("namespace", String(128), nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("owed_since", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("last_error", Text),
    Index("owed_due", "cluster", "due_at"),
)
"""Calls to Nomad that must be made until they are done."""

sites = Table(
    "sites",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("capacity", Text),
    Column("observed_at", BigInteger),
    Column("health_at", BigInteger),
    Column("unreachable_since", BigInteger),
    Column("suspect", Boolean),
    Column("critical_since", BigInteger),
)
"""What the monitor last said of a site, and since when the registry calls it critical."""

cordons = Table(
    "cordons",
    metadata,
    Column("site", String(63), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("cordoned_by", Text, nullable=False),
    Column("cordoned_at", BigInteger, nullable=False),
)

cancels_waiting = Table(
    "cancels_waiting",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("vo", String(255), nullable=False),
    Column("own_issuer", String(512)),
    Column("own_subject", String(255)),
    Column("requested_at", BigInteger, nullable=False),
    Column("kept_at", BigInteger, nullable=False),
)
"""CancelJob that came before its SubmitJob. `own_*`: only a job of this owner may be cancelled by it."""

TABLES: Final = (jobs, attempts, owed, sites, cordons, cancels_waiting)
