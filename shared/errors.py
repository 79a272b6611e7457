"""The few kinds of failure that cross a port, and what the caller should do with each.

Not status codes: HTTP speaks of these at the edge only (`shared/runtime/problems.py`).
"""

from collections.abc import Mapping


class SeraiError(Exception):
    """Base of everything the platform raises on purpose.

    `what` is a sentence for people: what happened, where, and how to mend it.
    """

    def __init__(self, what: str, *, code: str = "", details: Mapping[str, object] | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.code = code
        self.details = dict(details or {})


class Refused(SeraiError):
    """Permanent, theirs: the same request will be refused again. Do not retry; tell who asked."""


class NotFound(Refused):
    """Permanent, theirs: there is no such thing, or the caller may not know of it."""


class Conflict(Refused):
    """Permanent, theirs: it clashes with what is already there."""


class Unavailable(SeraiError):
    """Temporary: something outside does not answer. The one retrying layer of this failure tries again.

    `retry_after_s` is a hint in seconds.
    """

    def __init__(self, what: str, *, code: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(what, code=code)
        self.retry_after_s = retry_after_s


class TooMany(Unavailable):
    """Temporary, theirs: they ask more often than they may. Of the limit `name`, `amount` in `window_s` seconds, there
    are `remaining` left."""

    def __init__(
        self, what: str, *, name: str, amount: int, window_s: int, remaining: int, retry_after_s: float
    ) -> None:
        super().__init__(what, code="too_many_requests", retry_after_s=retry_after_s)
        self.name = name
        self.amount = amount
        self.window_s = window_s
        self.remaining = remaining


class OutcomeUnknown(Unavailable):
    """Temporary, and the call may have had its effect: read back before trying again."""


class Misconfigured(SeraiError):
    """Permanent until an operator acts: wrong address, credential, permission or version."""
