"""Reading signed tokens strictly: compact JWS (RFC 7515) and its JSON, with nothing left to a library's good will.

The signature itself is checked by joserfc with one chosen key and one chosen algorithm. What is refused here although
libraries let it pass: duplicate members, NaN, huge numbers, deep nesting, non-canonical base64url, keys or addresses of
keys inside the token. Used by `shared/runtime/tokens.py` (grants) and by auth (users' tokens).
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

PublicKey = RSAKey | ECKey | OKPKey

HEADER_NAMES: Final = frozenset({"alg", "kid", "typ"})
"""All that a header may say. `jku`, `x5u`, `jwk`, `x5c`, `crit`, `b64`, `zip`, `cty` would let the token choose."""

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_HEADER_DEPTH: Final = 4
_PAYLOAD_DEPTH: Final = 16
_MOST_DIGITS: Final = 16


class Malformed(ValueError):
    """The token does not have the one form that is accepted; the text says where."""


@dataclass(frozen=True, slots=True)
class Compact:
    """A well-formed compact JWS. Nothing in it is believed before `verify`."""

    text: str
    header: dict[str, Any]
    unverified: dict[str, Any]

    @property
    def algorithm(self) -> str:
        return str(self.header["alg"])

    @property
    def kid(self) -> str:
        """The name of the key, empty when the header has none."""
        return str(self.header.get("kid", ""))


def parse(text: str, *, most_bytes: int, ignored: frozenset[str] = frozenset()) -> Compact:
    """Take a compact JWS with JSON claims apart. `ignored` names further header members that may stand there, unused.

    Raises Malformed.
    """
    header, payload = split(text, most_bytes=most_bytes, ignored=ignored)
    return Compact(text, header, strict_json(payload, _PAYLOAD_DEPTH, "payload"))


def split(text: str, *, most_bytes: int, ignored: frozenset[str] = frozenset()) -> tuple[dict[str, Any], bytes]:
    """Header and payload of a compact JWS, whatever the payload is. Raises Malformed."""
    if len(text) > most_bytes:
        raise Malformed(f"longer than {most_bytes} bytes")
    segments = text.split(".")
    if len(segments) != 3:
        raise Malformed(f"{len(segments)} segments instead of 3")
    header = strict_json(_decoded(segments[0], "header"), _HEADER_DEPTH, "header")
    _check_header(header, ignored)
    _decoded(segments[2], "signature")
    return header, _decoded(segments[1], "payload") if segments[1] else b""


def _check_header(header: dict[str, Any], ignored: frozenset[str]) -> None:
    unknown = header.keys() - HEADER_NAMES - ignored
    if unknown:
        raise Malformed(f"header member {min(unknown)[:40]!r} is not accepted")
    for name in HEADER_NAMES & header.keys():
        value = header[name]
        if not isinstance(value, str) or not 0 < len(value) <= 255 or not (value.isascii() and value.isprintable()):
            raise Malformed(f"header member {name!r} is not a short printable string")
    if "alg" not in header:
        raise Malformed("header has no 'alg'")


def _decoded(segment: str, what: str) -> bytes:
    """Base64url without padding, in its one canonical spelling (RFC 7515, section 2; RFC 4648, section 3.5)."""
    if _SEGMENT.fullmatch(segment) is None:
        raise Malformed(f"{what} is empty or not base64url")
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error as error:
        raise Malformed(f"{what} is not base64url") from error
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != segment.encode():
        raise Malformed(f"{what} is not canonical base64url")
    return raw


def strict_json(raw: bytes, depth: int, what: str) -> dict[str, Any]:
    """One JSON object in UTF-8: no duplicate members, no NaN or Infinity, no number of more than 16 digits.

    Nested at most `depth` deep. Raises Malformed.
    """
    try:
        value = _STRICT.decode(raw.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Malformed(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not a JSON object")
    if not _shallower(value, depth):
        raise Malformed(f"{what} is nested deeper than {depth}")
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed("a member stands there twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is not a JSON number")


def _small_int(digits: str) -> int:
    if len(digits.lstrip("-")) > _MOST_DIGITS:
        raise Malformed(f"a number has more than {_MOST_DIGITS} digits")
    return int(digits)


def _small_float(text: str) -> float:
    value = float(text)
    if len(text) > 32 or value in (float("inf"), float("-inf")):
        raise Malformed("a number is out of range")
    return value


_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=_once_each, parse_constant=_no_constant, parse_int=_small_int, parse_float=_small_float
)
"""Made once: that costs more than reading a token's head with it."""


def _shallower(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_shallower(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_shallower(item, depth - 1) for item in value)
    return True


def verify(token: Compact, key: PublicKey, algorithm: str) -> bool:
    """Whether this one key made the signature with exactly this algorithm. No other key or algorithm is tried."""
    if token.algorithm != algorithm:
        return False
    try:
        jws.deserialize_compact(token.text, key, registry=_registry(algorithm))
    except (JoseError, ValueError):
        return False
    return True


@lru_cache(maxsize=16)
def _registry(algorithm: str) -> jws.JWSRegistry:
    return jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
