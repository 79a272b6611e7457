"""What an example job must have come to (`expected.yaml`), and how what happened differs from it. Pure.

Not here: running the examples (`showcase.py`). The fields are described in `examples/README.md`.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from serai.errors import BadJobFile
from serai.values import FINAL_STATES, Json

EACH_SITE: Final = "*"


@dataclass(frozen=True, slots=True)
class Visit:
    """What to do with a service once it runs: fetch `path` of `endpoint`, find `contains`, then cancel the job."""

    endpoint: str
    path: str = "/"
    contains: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """The content of one `expected.yaml`; None and empty mean: anything."""

    user: str
    state: str
    exit_code: int | None = None
    attempts: int | None = None
    reason: str | None = None
    outputs: Mapping[str, Json] = field(default_factory=dict)
    verdicts: Mapping[str, str] = field(default_factory=dict)
    timeline: tuple[str, ...] = ()
    while_running: Visit | None = None

    @classmethod
    def of(cls, raw: Any, name: str) -> "Expected":
        """From the decoded file. Raises BadJobFile when it says something that nobody would check."""
        faults = list(_faults(raw))
        if faults:
            raise BadJobFile([f"{name}: {fault}" for fault in faults])
        visit = raw.get("while_running")
        return cls(
            **{**raw, "timeline": tuple(raw.get("timeline", ())), "while_running": Visit(**visit) if visit else None}
        )


def _faults(raw: Any) -> Iterator[str]:
    if not isinstance(raw, dict):
        yield "must be a mapping with at least `user` and `state`"
        return
    known = {each.name for each in fields(Expected)}
    yield from (f"unknown field '{name}'; known: {', '.join(sorted(known))}" for name in raw if name not in known)
    yield from (f"the field '{name}' is required" for name in ("user", "state") if name not in raw)
    if "state" in raw and raw["state"] not in FINAL_STATES:
        yield f"state '{raw['state']}' is not final; choose: {', '.join(sorted(FINAL_STATES))}"
    for name, wish in (raw.get("outputs") or {}).items():
        if not isinstance(wish, dict) or not wish or set(wish) - {"contains", "json"}:
            yield f"output '{name}' needs `contains` and/or `json`"
    visit = raw.get("while_running")
    if visit is not None and (not isinstance(visit, dict) or "endpoint" not in visit or set(visit) - _VISIT):
        yield "while_running needs `endpoint`, and may have `path` and `contains`"


_VISIT: Final = {each.name for each in fields(Visit)}


@dataclass(frozen=True, slots=True)
class Actual:
    """What happened. `verdicts` by site; `timeline` the kinds of all events; `visited` what the service answered."""

    state: str
    exit_code: int | None = None
    attempts: int = 0
    reason: str | None = None
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    verdicts: Mapping[str, str] = field(default_factory=dict)
    timeline: Sequence[str] = ()
    visited: str | None = None


def differences(expected: Expected, actual: Actual) -> list[str]:
    """Each difference as a sentence; empty when all is as expected."""
    return [*_plain(expected, actual), *_outputs(expected, actual), *_verdicts(expected, actual),
            *_timeline(expected, actual), *_visit(expected, actual)]  # fmt: skip


def _plain(expected: Expected, actual: Actual) -> Iterator[str]:
    for name in ("state", "exit_code", "attempts", "reason"):
        wanted, found = getattr(expected, name), getattr(actual, name)
        if wanted is not None and wanted != found:
            yield f"{name}: expected {wanted}, got {found}"


def _outputs(expected: Expected, actual: Actual) -> Iterator[str]:
    for name, wish in expected.outputs.items():
        content = actual.outputs.get(name)
        if content is None:
            yield f"output {name}: expected, but it was not kept"
            continue
        text = content.decode("utf-8", errors="replace")
        if "contains" in wish and str(wish["contains"]) not in text:
            yield f"output {name}: does not contain {wish['contains']!r}"
        if "json" in wish:
            yield from (f"output {name}: {difference}" for difference in _json(wish["json"], text))


def _json(wanted: Any, text: str) -> list[str]:
    try:
        return list(missing(wanted, json.loads(text), ""))
    except ValueError:
        return ["is not JSON"]


def missing(wanted: Any, found: Any, where: str) -> Iterator[str]:
    """What of `wanted` is not in `found`: mappings by their members, everything else by equality."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, value in wanted.items():
            yield from missing(value, found.get(name), f"{where}/{name}")
    elif wanted != found:
        yield f"{where or '/'}: expected {wanted!r}, got {found!r}"


def _verdicts(expected: Expected, actual: Actual) -> Iterator[str]:
    if expected.verdicts and not actual.verdicts:
        yield "verdicts: expected, but no site was judged"
        return
    for site, code in expected.verdicts.items():
        judged = actual.verdicts if site == EACH_SITE else {site: actual.verdicts.get(site)}
        yield from (
            f"verdict of {name}: expected {code}, got {found}" for name, found in judged.items() if found != code
        )


def _timeline(expected: Expected, actual: Actual) -> Iterator[str]:
    happened = Counter(actual.timeline)
    for kind, times in Counter(expected.timeline).items():
        if happened[kind] < times:
            yield f"timeline: {kind} expected {times} times, happened {happened[kind]} times"


def _visit(expected: Expected, actual: Actual) -> Iterator[str]:
    visit = expected.while_running
    if visit is None:
        return
    if actual.visited is None:
        yield f"endpoint {visit.endpoint}: gave no answer while the job ran"
    elif visit.contains not in actual.visited:
        yield f"endpoint {visit.endpoint}: {visit.contains!r} is not in its answer {actual.visited[:200]!r}"
