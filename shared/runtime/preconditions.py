"""Conditional requests (RFC 9110, section 13): what `If-Match` and `If-None-Match` say of an entity tag. Pure.

A change is made only under the version that its caller has seen: strong comparison, so `W/"5"` never matches. A read is
spared when its caller has the version already: weak comparison.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from shared.errors import Conflict

_TAG: Final = re.compile(r'\s*(?:(W/)?("[\x21\x23-\x7e\x80-\xff]*"))?\s*(?:,|$)')


def etag(version: int) -> str:
    """The entity tag of a version: strong, what is shown of it is the same to the byte."""
    return f'"{version}"'


def etag_of(body: bytes) -> str:
    """The entity tag of bytes that have no version."""
    return f'"{hashlib.sha256(body).hexdigest()[:22]}"'


def tags(header: str) -> list[tuple[bool, str]]:
    """(weak, tag in quotes) of each in the list; what is not of that form ends it: nothing after it is believed."""
    found, place = [], 0
    while place < len(header) and (read := _TAG.match(header, place)) is not None:
        if read[2] is not None:
            found.append((read[1] is not None, read[2]))
        place = read.end()
    return found


def has_already(if_none_match: str | None, etag: str) -> bool:
    """Whether a reader has this version, so that 304 is enough."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or any(tag == etag for _, tag in tags(if_none_match))


@dataclass(frozen=True, slots=True)
class Condition:
    """Under what a change is wanted; nothing = in any case."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check(self, etag: str | None) -> None:
        """Raises Conflict (code `precondition_failed`) unless it holds for what is there; `etag` None = nothing is."""
        if self.if_match is not None and not self._matches(self.if_match, etag):
            now = f"it has the ETag {etag} now" if etag is not None else "there is nothing here yet"
            raise Conflict(f"`If-Match` names another version: {now}", code="precondition_failed")
        if etag is not None and has_already(self.if_none_match, etag):
            raise Conflict(f"`If-None-Match` forbids it: what is there has the ETag {etag}", code="precondition_failed")

    @staticmethod
    def _matches(header: str, etag: str | None) -> bool:
        if etag is None:
            return False
        return header.strip() == "*" or any(tag == etag for weak, tag in tags(header) if not weak)


ALWAYS: Final = Condition()
