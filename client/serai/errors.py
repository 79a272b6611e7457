"""What can go wrong for a caller of the SDK. Every message says what happened and what to do next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


class ClientError(Exception):
    """Base of everything that this package raises on purpose. `next` is what to do now, where whoever raised knows."""

    next: str | None = None

    def then(self, next: str) -> Self:
        """The same error, with what to do now."""
        self.next = next
        return self


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a problem's `errors`: where (JSON pointer into the request), what, and how to mend it."""

    pointer: str
    detail: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.detail} ({self.hint})" if self.hint else self.detail


class Problem(ClientError):
    """The platform's own refusal, an RFC 9457 problem document.

    `code` is the short word of the platform's closed catalogue (`not_found`, `invalid_request`, ...), `errors` the
    single faults of an invalid request, `members` the whole document.
    """

    def __init__(
        self, status: int, *, type: str = "about:blank", title: str = "", detail: str = "", code: str = "",
        errors: Sequence[Fault] = (), retry_after_s: float | None = None, members: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(detail or title or f"HTTP {status}")
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.code = code
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        self.members = dict(members or {})

    @property
    def temporary(self) -> bool:
        """Whether the same request may be answered later."""
        return self.status in (429, 502, 503, 504)


class Unreachable(ClientError):
    """Nobody answers at `url`, or the connection broke and stayed broken."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"cannot reach {url}: {why}")
        self.url = url
        self.why = why


class NotUnderstood(ClientError):
    """What answers at the address does not speak the platform's API."""


class WaitTimedOut(ClientError):
    """The given time passed before the jobs had ended; they go on."""

    def __init__(self, timeout_s: float, unfinished: Sequence[str]) -> None:
        super().__init__(f"after {timeout_s:g} s still not ended: {', '.join(unfinished)}")
        self.timeout_s = timeout_s
        self.unfinished = tuple(unfinished)


class BadJobFile(ClientError):
    """A job file cannot be used. `lines` are ready sentences of the form `file:line: what is wrong`."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class BadSettings(ClientError):
    """The user's own settings or token file cannot be used."""


class IssuerRefused(ClientError):
    """An issuer's own refusal (RFC 6749, 5.2): `code` is its word, `description` what it says beside it."""

    def __init__(self, issuer: str, code: str, description: str = "") -> None:
        super().__init__(f"{issuer} says {code}" + (f": {description}" if description else ""))
        self.issuer = issuer
        self.code = code
        self.description = description


class NoWayIn(ClientError):
    """No token can be had from here; the message says how to get one."""
