"""Opaque cursors of lists: where the next page begins, bound to the list they came from by a MAC. Pure."""

import base64
import binascii
import hashlib
import hmac
from typing import Final, NamedTuple

from shared.errors import Refused

_MAC_BYTES: Final = 16


class Place(NamedTuple):
    """The last row that was shown: its time (microseconds) and id."""

    created_at: int
    id: str


def key_from(secret: str) -> bytes:
    """The MAC key that follows from a secret; the same at every copy of the service."""
    return hashlib.sha256(b"serai list cursor\0" + secret.encode()).digest()


def write(key: bytes, place: Place, list_name: str) -> str:
    """The cursor for `place` in the list that `list_name` (its filters and reader) stands for."""
    content = f"{place.created_at}.{place.id}".encode()
    return base64.urlsafe_b64encode(_mac(key, content, list_name) + content).decode().rstrip("=")


def read(key: bytes, cursor: str, list_name: str) -> Place:
    """The place a cursor stands for. Raises Refused (code `invalid_cursor`) when it is not one of this list."""
    try:
        raw = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        mac, content = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, _mac(key, content, list_name)):
            raise ValueError
        created_at, _, id = content.decode().partition(".")
        return Place(int(created_at), id)
    except (ValueError, binascii.Error) as error:
        raise Refused(
            "the cursor does not belong to this list (same filters, same user); start again without 'cursor'",
            code="invalid_cursor",
        ) from error


def _mac(key: bytes, content: bytes, list_name: str) -> bytes:
    return hmac.digest(key, list_name.encode() + b"\0" + content, "sha256")[:_MAC_BYTES]
