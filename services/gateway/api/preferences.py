"""What request headers and parameters say, read by the letter of their RFCs. Pure."""

import math
import re

from services.gateway import requests
from services.gateway.requests import refused_parameter

_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d")
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6}(?:\.\d+)?)\"?s?(?=$|[,;\s])")


def wait_s(prefer: str | None, limit_s: float) -> float | None:
    """Seconds to wait (RFC 7240 `wait`), at most `limit_s`; None when nothing is said."""
    found = _WAIT.search(prefer or "")
    if found is None:
        return None
    seconds = float(found[1])
    return min(seconds, limit_s) if math.isfinite(seconds) else None


def moment(text: object) -> object:
    """A time as RFC 3339 writes it, checked for its form only; seconds since some day are none. Raises ValueError."""
    if isinstance(text, str) and not _MOMENT.match(text):
        raise ValueError("must be a time as RFC 3339 writes it, e.g. 2026-11-24T12:00:00Z")
    return text


def labels(given: list[str] | None) -> tuple[tuple[str, str], ...]:
    """`key:value` each; the key ends at the first colon. Raises Refused (code `invalid_request`)."""
    pairs = []
    for text in given or ():
        name, colon, value = text.partition(":")
        if not colon or not requests.is_label(name):
            raise refused_parameter("label", f"{text[:80]!r} is not of the form key:value")
        pairs.append((name, value))
    return tuple(dict.fromkeys(pairs))
