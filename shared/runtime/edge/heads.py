"""What is wrong with the head of a request. Pure.

What a request is about is decided by the service; here it is only whether two readers (a proxy and we) could read it
differently, whether it is meant for us, and whether it keeps within bounds.
"""

import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from shared.runtime.edge.settings import EdgeSettings

Headers = Sequence[tuple[bytes, bytes]]

_HOST: Final = re.compile(
    rb"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_.])?)(?::(?P<port>\d{1,5}))?"
)
_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_USUAL: Final = re.compile(rb"(?:/[A-Za-z0-9_~:@!$&'()*+,;=-][A-Za-z0-9._~:@!$&'()*+,;=-]*)+")
"""A path of parts that are neither empty nor begin with a dot, with nothing to decode: most are, and need one look."""
_PLAIN: Final = re.compile(rb"[\x21-\x7e]*")
SINGLE: Final = frozenset((b"host", b"authorization", b"content-type", b"content-encoding", b"idempotency-key"))
"""Headers that say one thing. Given twice, a proxy may have looked at the other one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A refusal: a code of the catalogue of problems, and words."""

    code: str
    detail: str


MALFORMED: Final = Fault("malformed_request", "this is no well-formed HTTP/1.1 request (RFC 9112)")
HEAD_LATE: Final = Fault("request_timeout", "the headers did not arrive in time")
BODY_LATE: Final = Fault("request_timeout", "the body did not arrive in time")


def of_wire(target: bytes, headers: Headers, version: str, bounds: EdgeSettings) -> Fault | None:
    """What forbids even to read on: size, and how the body's end would be found."""
    if len(target) > bounds.request_line_bytes:
        return target_too_long(bounds)
    if len(headers) > bounds.header_count:
        return Fault("headers_too_large", f"there are more than {bounds.header_count} headers")
    total = 0
    for name, value in headers:
        size = len(name) + len(value)
        total += size
        if size > bounds.header_bytes:
            return Fault("headers_too_large", f"a header is longer than {bounds.header_bytes} bytes")
        if name == b"transfer-encoding" and (value.lower() != b"chunked" or version != "1.1"):
            return Fault("malformed_request", "the only Transfer-Encoding that is read is `chunked`, in HTTP/1.1")
        if name == b"content-length" and (not value.isdigit() or int(value[:20]) > bounds.body_bytes):
            return too_large(bounds) if value.isdigit() else MALFORMED
    return head_too_large(bounds) if total > bounds.head_bytes else None


def target_too_long(bounds: EdgeSettings) -> Fault:
    return Fault("uri_too_long", f"the request's target is longer than {bounds.request_line_bytes} bytes")


def head_too_large(bounds: EdgeSettings) -> Fault:
    return Fault("headers_too_large", f"the headers are longer than {bounds.head_bytes} bytes together")


def too_large(bounds: EdgeSettings) -> Fault:
    return Fault("too_large", f"the body is larger than {bounds.body_bytes} bytes")


def host_name(given: bytes) -> str | None:
    """The name in a `Host` header in lower case, without port, brackets and a last dot; None when it is malformed."""
    found = _HOST.fullmatch(given)
    if found is None or int(found["port"] or 0) > 65_535:
        return None
    name = found["name"].decode("ascii").lower()
    if name.startswith("["):
        return name[1:-1] if _is_address(name[1:-1]) else None
    return name.removesuffix(".")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether a host name can only mean this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_allowed(name: str, allowed: Collection[str], own_address: str) -> bool:
    """Whether a request for this host is for us. `own_address` is the one that was connected to."""
    if name in allowed or name == own_address or is_loopback(name) or "*" in allowed:
        return True
    return any(each.startswith("*.") and name.endswith(each[1:]) for each in allowed)


def path_is_plain(raw: bytes) -> bool:
    """Whether every reader takes a path (as sent, without query) for the same one.

    Not plain: empty and dotted parts, encoded slashes, percent signs, controls and bytes beyond ASCII, broken encoding.
    """
    if _USUAL.fullmatch(raw):
        return True
    if _BAD_PERCENT.search(raw):
        return False
    decoded = unquote_to_bytes(raw)
    same_parts = decoded.count(b"/") == raw.count(b"/") and b"%" not in decoded
    return same_parts and _PLAIN.fullmatch(decoded) is not None and _is_plain(decoded)


def _is_plain(path: bytes) -> bool:
    if b"//" in path or b"\\" in path or not path.startswith(b"/"):
        return False
    return b"/." not in path or not any(part in (b".", b"..") for part in path.split(b"/"))


def query_is_plain(raw: bytes) -> bool:
    """Whether a query holds no control characters: no name or value of ours does, and databases choke on NUL."""
    if b"%" not in raw:
        return True
    return not any(byte < 0x20 or byte == 0x7F for byte in unquote_to_bytes(raw.replace(b"+", b" ")))


def forwarded_for(chain: Sequence[bytes], peer: str, trusted: Collection[object]) -> str:
    """The client of a request that came through proxies: the last address that is not a trusted proxy's.

    `chain` are the `X-Forwarded-For` headers in order. An entry that is no address ends the search: nothing before it
    can be believed.
    """
    hops = [hop.strip() for header in chain for hop in header.decode("latin-1").split(",")]
    client = peer
    for hop in reversed(hops):
        if not _is_address(hop):
            return client
        client = hop
        if not is_trusted(hop, trusted):
            return client
    return client


def is_trusted(address: str, networks: Collection[object]) -> bool:
    """Whether an address lies in one of these networks."""
    if not networks:
        return False
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None) or ip
    return any(mapped in network for network in networks)  # type: ignore[operator]
