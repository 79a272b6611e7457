"""Rows of the state and the events made from them, in Nomad's field names.

Evaluations and allocations leave out zero values (an absent key is zero); jobs, nodes and deployments are written in
full. Rows are never changed in place: a change makes a new row, so an event may keep the one it tells of. Parts that
never change are kept as encoded JSON (`frozen`), which makes telling them again nearly free.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from .jobspec import Row

CLIENT_TERMINAL = frozenset({"complete", "failed", "lost"})
EVAL_TERMINAL = frozenset({"complete", "failed", "canceled"})
DESIRED_UPDATES: Row = {
    "Canary": 0, "DestructiveUpdate": 0, "Disconnect": 0, "Ignore": 0, "InPlaceUpdate": 0, "Migrate": 0, "Place": 0,
    "Preemptions": 0, "Reconnect": 0, "RescheduleLater": 0, "RescheduleNow": 0, "Stop": 0,
}  # fmt: skip
NO_TRANSITION: Row = {
    "ForceReschedule": None, "Migrate": None, "MigrateDisablePlacement": None, "NoShutdownDelay": None,
    "Reschedule": None,
}  # fmt: skip
TASK_EVENT: Row = {
    "Details": {}, "DiskLimit": 0, "DisplayMessage": "", "DownloadError": "", "DriverError": "", "DriverMessage": "",
    "ExitCode": 0, "FailedSibling": "", "FailsTask": False, "GenericSource": "", "KillError": "", "KillReason": "",
    "KillTimeout": 0, "Message": "", "RestartReason": "", "SetupError": "", "Signal": 0, "StartDelay": 0,
    "TaskSignal": "", "TaskSignalReason": "", "Time": 0, "Type": "", "ValidationError": "", "VaultError": "",
}  # fmt: skip


@dataclass(slots=True)
class Event:
    """One changed row as the stream tells it; encoded when the first reader wants it."""

    topic: str
    kind: str
    key: str
    namespace: str
    filter_keys: tuple[str, ...] | None
    payload: Row
    index: int
    encoded: bytes = b""

    def encode(self) -> bytes:
        """The event's JSON, made once."""
        if not self.encoded:
            self.encoded = packed(
                {
                    "FilterKeys": self.filter_keys,
                    "Index": self.index,
                    "Key": self.key,
                    "Namespace": self.namespace,
                    "Payload": self.payload,
                    "Topic": self.topic,
                    "Type": self.kind,
                }
            )
        return self.encoded


@dataclass(slots=True)
class Line:
    """All events of one transaction: one line of the stream, one item of the ring buffer."""

    index: int
    events: list[Event]
    lines: dict[tuple[int, ...], bytes] = field(default_factory=dict)

    def encode(self, chosen: tuple[int, ...]) -> bytes:
        """The line with the chosen events only; equal choices share the bytes."""
        found = self.lines.get(chosen)
        if found is None:
            body = b",".join(self.events[i].encode() for i in chosen)
            found = self.lines[chosen] = b'{"Events":[%b],"Index":%d}\n' % (body, self.index)
        return found


def frozen(value: Any) -> orjson.Fragment:
    """Encoded JSON that stands for `value` in rows."""
    return orjson.Fragment(packed(value))


def packed(value: Any) -> bytes:
    """JSON to be kept: copied, because orjson's own bytes hold on to a buffer several times their size."""
    return bytes(memoryview(orjson.dumps(value)))


def thawed(value: Any) -> Any:
    """The plain value, whether frozen or not."""
    return orjson.loads(orjson.dumps(value)) if isinstance(value, orjson.Fragment) else value


def rfc3339(ns: int) -> str:
    """Unix nanoseconds as Go writes a UTC time."""
    seconds, rest = divmod(ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


def unix_ns(text: str) -> int:
    """The opposite of `rfc3339`."""
    head, _, rest = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(head + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int((rest or "0").ljust(9, "0")[:9])


def task_event(kind: str, now: int, message: str, details: dict[str, str] | None = None, **more: Any) -> Row:
    """A task event with its display text."""
    return {**TASK_EVENT, "Type": kind, "Time": now, "DisplayMessage": message, "Details": details or {}, **more}


def evaluation(
    eval_id: str,
    job_id: str,
    namespace: str,
    *,
    kind: str,
    trigger: str,
    priority: int,
    now: int,
    status: str = "pending",
    **more: Any,
) -> Row:
    """A new evaluation; indexes are set when it is written."""
    row = {
        "CreateTime": now,
        "ID": eval_id,
        "JobID": job_id,
        "ModifyTime": now,
        "Namespace": namespace,
        "Priority": priority,
        "Status": status,
        "TriggeredBy": trigger,
        "Type": kind,
    }
    return {**row, **{k: v for k, v in more.items() if v}}


def is_client_terminal(alloc: Row) -> bool:
    """The client is done with it."""
    return alloc.get("ClientStatus") in CLIENT_TERMINAL


def is_terminal(alloc: Row) -> bool:
    """Nomad's word: not wanted any more, or done."""
    return alloc.get("DesiredStatus") in ("stop", "evict") or alloc.get("ClientStatus") in CLIENT_TERMINAL
