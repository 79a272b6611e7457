"""Keeps spans in one SQLite file, for the embedded platform: written by the SDK's batch processor, read by trace id."""

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

_SCHEMA = """
create table if not exists spans (
  trace_id text not null, span_id text not null, started_at integer not null, body text not null,
  primary key (trace_id, span_id)
) without rowid;
create index if not exists spans_age on spans (started_at);
"""


class SpanStore(SpanExporter):
    """Spans by trace id. The same span exported twice is kept once. Times in nanoseconds."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.execute("pragma journal_mode=wal")
        self._connection.execute("pragma synchronous=normal")
        self._connection.executescript(_SCHEMA)

    def processor(self) -> BatchSpanProcessor:
        """A bounded queue and thread that feed this store; shut it down before the store is closed."""
        return BatchSpanProcessor(self, max_queue_size=8192, schedule_delay_millis=500, max_export_batch_size=1024)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        rows = [_row(span) for span in spans]
        with self._lock, self._connection:
            self._connection.executemany("insert or replace into spans values (?, ?, ?, ?)", rows)
        return SpanExportResult.SUCCESS

    def spans_of(self, trace_id: str) -> list[dict[str, Any]]:
        """All kept spans of a trace, oldest first."""
        with self._lock:
            found = self._connection.execute(
                "select body from spans where trace_id = ? order by started_at", (trace_id,)
            ).fetchall()
        return [orjson.loads(row[0]) for row in found]

    def forget(self, before_ns: int) -> None:
        """Delete spans that began before a time."""
        with self._lock, self._connection:
            self._connection.execute("delete from spans where started_at < ?", (before_ns,))

    def shutdown(self) -> None:
        """Nothing: several processors share the store, and each tells it when it stops."""

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def _row(span: ReadableSpan) -> tuple[str, str, int, str]:
    context, parent = span.context, span.parent
    assert context is not None
    trace_id, span_id, start = f"{context.trace_id:032x}", f"{context.span_id:016x}", span.start_time or 0
    body = {
        "trace_id": trace_id, "span_id": span_id, "parent_id": f"{parent.span_id:016x}" if parent else None,
        "name": span.name, "service": span.resource.attributes.get("service.name"), "kind": span.kind.name.lower(),
        "start_ns": start, "end_ns": span.end_time, "attributes": dict(span.attributes or {}),
        "error": span.status.description,
    }  # fmt: skip
    return trace_id, span_id, start, orjson.dumps(body).decode()
