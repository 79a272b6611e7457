"""The tables that the runtime keeps in every service's own database."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text


class RuntimeTables:
    """outbox (append-only log), relay cursor, inbox and leases; declared into the service's MetaData.

    Times are Unix microseconds. `job_id`, `attempt` and `sequence` are set for facts of a job's series, so that a
    reader with a hole can ask for them (`Transactions.events_after`).
    """

    def __init__(self, metadata: MetaData) -> None:
        self.outbox = Table(
            "outbox",
            metadata,
            Column("position", Integer().with_variant(BigInteger, "postgresql"), primary_key=True, autoincrement=True),
            Column("id", String(64), nullable=False),
            Column("type", String(128), nullable=False),
            Column("exchange", String(64), nullable=False),
            Column("routing_key", String(255), nullable=False),
            Column("content_type", String(64), nullable=False),
            Column("headers", Text, nullable=False),
            Column("body", LargeBinary, nullable=False),
            Column("job_id", String(36)),
            Column("attempt", Integer),
            Column("sequence", Integer),
            Column("created_at", BigInteger, nullable=False),
            Index("outbox_series", "job_id", "attempt", "sequence"),
            sqlite_autoincrement=True,  # a position is never given again, even when the table was emptied meanwhile
        )
        self.relay_cursor = Table(
            "relay_cursor",
            metadata,
            Column("name", String(32), primary_key=True),
            Column("position", BigInteger, nullable=False),
        )
        self.inbox = Table(
            "inbox",
            metadata,
            Column("consumer", String(64), primary_key=True),
            Column("id", String(64), primary_key=True),
            Column("received_at", BigInteger, nullable=False),
            Index("inbox_age", "received_at"),
        )
        self.leases = Table(
            "leases",
            metadata,
            Column("name", String(64), primary_key=True),
            Column("holder", String(128), nullable=False),
            Column("fence", BigInteger, nullable=False),
            Column("until", Float, nullable=False),
        )

    @property
    def all(self) -> tuple[Table, ...]:
        return (self.outbox, self.relay_cursor, self.inbox, self.leases)
