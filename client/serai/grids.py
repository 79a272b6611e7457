"""Tables for people: what the rows say is decided here (pure), how they look depends on the terminal.

On a terminal they are Rich tables with coloured states; elsewhere aligned plain lines without colour or cutting.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from serai.values import Event, Job, Json

COLOURS: Final = {
    "accepted": "cyan", "queued": "yellow", "placed": "cyan", "starting": "cyan", "running": "blue",
    "cancelling": "magenta", "succeeded": "green", "failed": "red", "cancelled": "magenta", "rejected": "red",
    "fits": "green", "passing": "green", "warning": "yellow", "critical": "red", "unreachable": "red",
    "disconnected": "yellow", "lost": "red", "stopped": "magenta", "pending": "yellow",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grid:
    """Column names and rows of plain text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> "Grid":
        return cls(tuple(columns), tuple(tuple(_cell(value) for value in row) for row in rows))


def show(console: Console, grid: Grid) -> None:
    """Write the grid to the console."""
    if console.is_terminal:
        console.print(rich_table(grid))
        return
    widths = [max(map(len, column)) for column in zip(grid.columns, *grid.rows, strict=True)]
    for row in (grid.columns, *grid.rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(Text(line.rstrip()), soft_wrap=True)


def progress(job: Job) -> str:
    """What a running job told of itself last."""
    return _of_itself(job.raw.get("progress") or {})


def _of_itself(told: Json) -> str:
    """`50 %, half way, loss 0.25`."""
    words = [] if told.get("fraction") is None else [f"{told['fraction'] * 100:.0f} %"]
    words += [_cell(told["message"])] if told.get("message") else []
    return ", ".join(
        [*words, *(f"{_cell(name)} {_cell(value)}" for name, value in (told.get("results") or {}).items())]
    )


def rich_table(grid: Grid, title: str | None = None) -> Table:
    """The grid as a Rich table."""
    table = Table(box=None, header_style="bold", pad_edge=False, title=title)
    for column in grid.columns:
        table.add_column(column, overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(cell, style=COLOURS.get(cell.rpartition(".")[2], "")) for cell in row))
    return table


def _cell(value: object) -> str:
    """Plain text of one cell."""
    return visible("" if value is None else str(value)).replace("\n", " ")


def visible(text: str) -> str:
    """The text with what could steer a terminal made visible: words of sites and of other people are among ours."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


# -- what the rows say --------------------------------------------------------------------------------------------


def short(job_id: str) -> str:
    """The end of a job id, which tells jobs apart (its beginning is the time); commands accept it."""
    return job_id[-8:]


def jobs_grid(jobs: Iterable[Job], now: datetime) -> Grid:
    columns = ("ID", "NAME", "VO", "STATE", "SITE", "TRY", "AGE", "WHY")
    return Grid.of(
        columns,
        ((short(job.id), job.name, job.vo, job.state, job.site, job.attempt or "", age(job.created_at, now), why(job))
         for job in jobs),
    )  # fmt: skip


def why(job: Job) -> str:
    """The shortest true word about a job's state: its exit code or reason code."""
    if job.state == "failed" and job.exit_code:
        return f"exit code {job.exit_code}"
    return (job.reason_code or "") if job.state != "succeeded" else ""


def timeline_grid(events: Iterable[Event]) -> Grid:
    columns = ("TIME", "EVENT", "TRY", "SITE", "WHY")
    return Grid.of(
        columns,
        ((clock_time(event.time), event.kind, event.attempt or "", event.site, _told(event)) for event in events),
    )


def _told(event: Event) -> str | None:
    if event.kind == "job.progress":
        return _of_itself(event.data) or None
    words = [event.reason, f"({event.site_says})" if event.site_says else None]
    return " ".join(filter(None, words)) or None


def verdicts_grid(explanation: Json) -> Grid:
    rows = (
        (verdict["site"], verdict["code"], verdict.get("message"), _may_change(verdict),
         verdict.get("advice"))
        for verdict in explanation.get("verdicts") or ()
    )  # fmt: skip
    return Grid.of(("SITE", "VERDICT", "WHY", "MAY CHANGE", "WHAT YOU COULD CHANGE"), rows)


def _may_change(verdict: Json) -> str:
    if verdict["code"] == "fits":
        return ""
    return "yes" if verdict.get("can_change") else "no"


def outputs_grid(outputs: Iterable[Json]) -> Grid:
    rows = ((item["name"], item.get("size"), item.get("attempt"), item.get("problem")) for item in outputs)
    return Grid.of(("OUTPUT", "BYTES", "TRY", "PROBLEM"), rows)


def sites_grid(sites: Iterable[Json]) -> Grid:
    columns = ("SITE", "COUNTRY", "HEALTH", "CORES FREE", "MEMORY FREE", "GPUS FREE", "JOBS", "VOS")
    return Grid.of(
        columns,
        ((site["name"], site.get("country"), site_health(site), _free(site, "cores"),
          f"{_free(site, 'memory_mib')} MiB", _free(site, "gpus"), site.get("attempts"),
          ", ".join(site.get("vos") or ()))
         for site in sites),
    )  # fmt: skip


def site_health(site: Mapping[str, Any]) -> str:
    """One word: what an operator must know first."""
    if not site.get("reachable", True):
        return "unreachable"
    if site.get("cordoned"):
        return "cordoned"
    return "suspect" if site.get("suspect") else str(site.get("health", ""))


def _free(site: Mapping[str, Any], what: str) -> str:
    free, total = site.get(f"{what}_free") or 0, site.get(f"{what}_total") or 0
    return f"{round(free, 2):,} of {round(total, 2):,}"


# -- times --------------------------------------------------------------------------------------------------------


def moment(text: str | None) -> datetime | None:
    """An RFC 3339 time, or None where there is none."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def age(since: str | None, now: datetime) -> str:
    """How long ago, in the largest fitting unit: `42s`, `3m`, `5h`, `2d`."""
    start = moment(since)
    return "" if start is None else span((now - start).total_seconds())


def when(text: str | None, now: datetime) -> str:
    """Local date and time to the second, and how long ago: `2026-11-24 12:00:00 (3m ago)`."""
    at = moment(text)
    return "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M:%S} ({age(text, now)} ago)"


def span(seconds: float) -> str:
    """A duration in the largest fitting unit."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"


def clock_time(text: str) -> str:
    """Local time of day with milliseconds."""
    at = moment(text)
    return at.astimezone().strftime("%H:%M:%S.%f")[:-3] if at else text


# -- spans --------------------------------------------------------------------------------------------------------


def spans_grid(spans: Sequence[Json]) -> Grid:
    """Spans as a tree: children below their parent by time, offsets from the first one."""
    known = {span["span_id"] for span in spans}
    below: dict[str | None, list[Json]] = {}
    for span in sorted(spans, key=lambda span: span["start_ns"]):
        parent = span.get("parent_id")
        below.setdefault(parent if parent in known else None, []).append(span)
    first = min((span["start_ns"] for span in spans), default=0)
    return Grid.of(("STEP", "SERVICE", "AT", "TOOK", "PROBLEM"), _branch(below, None, 0, first))


def _branch(
    below: Mapping[str | None, list[Json]], parent: str | None, depth: int, first: int
) -> Iterable[Sequence[object]]:
    for span in below.get(parent, ()):
        took = ((span.get("end_ns") or span["start_ns"]) - span["start_ns"]) / 1e6
        at = (span["start_ns"] - first) / 1e6
        name = "  " * depth + span["name"]
        yield name, span.get("service"), f"+{at:,.1f} ms", f"{took:,.1f} ms", span.get("error")
        yield from _branch(below, span["span_id"], depth + 1, first)
