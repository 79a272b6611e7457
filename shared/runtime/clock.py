"""The one place that reads the clock; everything else is handed a `Clock`."""

from datetime import UTC, datetime


def system_clock() -> datetime:
    """Now, timezone-aware UTC."""
    return datetime.now(UTC)


def micros(moment: datetime) -> int:
    """Unix microseconds, the form in which tables keep times."""
    return int(moment.timestamp() * 1_000_000)


def moment(micros: int) -> datetime:
    """The inverse of `micros`."""
    return datetime.fromtimestamp(micros / 1_000_000, UTC)
