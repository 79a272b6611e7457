"""Spans: made when a step has ended, with its true times, and handed to the SDK's batch processor.

No span is ever kept open for the life of a job: each phase is exported as it ends, below a root whose id follows from
the job id (`ids.root_span_id`), so one trace holds the whole job whoever made which part. Losing spans never holds up
work: the processor's queue is bounded and drops.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from shared import ids
from shared.ports import Clock
from shared.runtime import redacting

SpanReader = Callable[[str], list[dict[str, Any]]]
"""All kept spans of a trace id (32 hex digits), as plain dicts."""

Attributes = Mapping[str, str | int | float | bool]

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_KINDS = {kind.name.lower(): kind for kind in SpanKind}


@dataclass(slots=True)
class OpenSpan:
    """A short step while it runs: add attributes; an exception marks it as failed.

    `job_id` may be set by a step that makes a job: having no parent of its own, it then hangs below that job's root.
    """

    trace_id: str
    span_id: str
    attributes: dict[str, str | int | float | bool] = field(default_factory=dict)
    job_id: UUID | None = None

    @property
    def traceparent(self) -> str:
        """To hand on, so that what follows hangs below this step."""
        return f"00-{self.trace_id}-{self.span_id}-01"


class Tracer:
    """Makes the spans of one service. Without a processor it makes none, at next to no cost."""

    def __init__(self, service: str, processor: SpanProcessor | None, clock: Clock) -> None:
        self._processor = processor
        self._clock = clock
        self._resource = Resource({"service.name": f"serai-{service}"})
        self._scope = InstrumentationScope("serai")

    @contextmanager
    def span(
        self, name: str, *, kind: str = "internal", job_id: UUID | None = None, traceparent: str = "",
        attributes: Attributes | None = None,
    ) -> Iterator[OpenSpan]:  # fmt: skip
        """A short step below the job's root, or below `traceparent`, or in a trace of its own."""
        trace_id, parent = _parent(job_id, traceparent)
        step = OpenSpan(trace_id, secrets.token_hex(8), dict(attributes or {}))
        start, error = self._clock(), ""
        try:
            yield step
        except BaseException as failure:
            error = repr(failure)
            raise
        finally:
            if step.job_id is not None and parent is None:
                trace_id, parent = _parent(step.job_id, "")
            self._export(name, trace_id, step.span_id, parent, start, self._clock(), step.attributes, kind, error)

    def record(
        self, name: str, *, job_id: UUID, start: datetime, end: datetime, attributes: Attributes | None = None,
        kind: str = "internal", error: str = "",
    ) -> None:  # fmt: skip
        """A phase of a job that has ended, below the job's root."""
        span_id = secrets.token_hex(8)
        trace, root = ids.trace_id(job_id), ids.root_span_id(job_id)
        self._export(name, trace, span_id, root, start, end, dict(attributes or {}), kind, error)

    def record_root(
        self, name: str, *, job_id: UUID, start: datetime, end: datetime, attributes: Attributes | None = None,
        error: str = "",
    ) -> None:  # fmt: skip
        """The job's own span, once it has ended; made twice it still is the same span."""
        trace, root = ids.trace_id(job_id), ids.root_span_id(job_id)
        self._export(name, trace, root, None, start, end, dict(attributes or {}), "internal", error)

    def _export(
        self, name: str, trace_id: str, span_id: str, parent: str | None, start: datetime, end: datetime,
        attributes: dict[str, str | int | float | bool], kind: str, error: str,
    ) -> None:  # fmt: skip
        if self._processor is None:
            return
        self._processor.on_end(
            ReadableSpan(
                name=name,
                context=_context(trace_id, span_id),
                parent=_context(trace_id, parent) if parent else None,
                resource=self._resource,
                attributes=redacting.fields(attributes),
                kind=_KINDS[kind],
                status=Status(StatusCode.ERROR, redacting.text(error)) if error else Status(StatusCode.UNSET),
                start_time=int(start.timestamp() * 1e9),
                end_time=max(int(end.timestamp() * 1e9), int(start.timestamp() * 1e9)),
                instrumentation_scope=self._scope,
            )
        )


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)


def _parent(job_id: UUID | None, traceparent: str) -> tuple[str, str | None]:
    if job_id is not None:
        return ids.trace_id(job_id), ids.root_span_id(job_id)
    given = traceparent.split("-")
    if len(given) == 4 and len(given[1]) == 32 and len(given[2]) == 16:
        return given[1], given[2]
    return secrets.token_hex(16), None
