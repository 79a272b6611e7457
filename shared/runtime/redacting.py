"""The last line of defence for logs and spans: what looks like proof of who somebody is becomes `<redacted>`. Pure.

Nothing of ours writes such a thing; a library's error may, or a mistake. It sees shapes and names, not meaning: a
secret in plain words under a harmless name passes. Called for each log line (`logs.py`) and span (`telemetry.py`).
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

MARK: Final = "<redacted>"

_NAMES: Final = frozenset({
    "accesstoken", "apikey", "assertion", "authorization", "clientsecret", "codeverifier", "cookie", "devicecode",
    "idtoken", "passphrase", "password", "passwd", "privatekey", "proxyauthorization", "readgrant", "refreshtoken",
    "secret", "seraireadgrant", "seraiservice", "servicekey", "servicetoken", "setcookie", "subjecttoken", "token",
    "xconsultoken", "xgrant", "xnomadtoken", "xvaulttoken",
})  # fmt: skip
"""Names under which nothing but proof stands, in small letters without `-` and `_`, behind the last dot."""

_WORDS: Final = (
    "access_token|refresh_token|id_token|subject_token|client_assertion|code_verifier|device_code|secret|token"
)
"""Names that people write sentences about: proof stands behind them only where a program wrote them."""
_FIELDS: Final = (
    "client_secret|password|passwd|x-nomad-token|x-consul-token|x-vault-token|serai-service|serai-read-grant|x-grant"
)
_SHAPES: Final = re.compile(
    r"\beyJ[\w-]{6,}\.[\w-]*\.[\w-]*(?:\.[\w-]*\.[\w-]*)?"  # RFC 7515, 7516: they begin with `{"` in base64
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[\w.~+/=-]{6,}"
    r"|(?P<user>://[^\s:/@]*:)[^\s@/]+(?=@)"
    rf"|(?P<said>\b(?:(?:{_WORDS})(?:=|['\"]\s?:\s?)|(?:{_FIELDS})['\"]?\s?[=:]\s?)b?+['\"]?+)[^\s'\"&,;)}}<]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
    re.IGNORECASE,
)
_DEPTH: Final = 4


def text(said: str) -> str:
    """The text with everything that has the shape of proof taken out."""
    return _SHAPES.sub(_without, said)


def _without(found: re.Match[str]) -> str:
    kept = found["scheme"] or found["user"] or found["said"] or ""
    return f"{kept}{MARK}"


def fields(given: Mapping[str, Any], depth: int = _DEPTH) -> dict[str, Any]:
    """The same fields; what stands under a name of proof is taken out as a whole."""
    return {
        name: MARK if value and isinstance(name, str) and is_proof(name) else _value(value, depth)
        for name, value in given.items()
    }


@lru_cache(maxsize=1_024)
def is_proof(name: str) -> bool:
    """Whether nothing but proof stands under a name."""
    return name.lower().rpartition(".")[2].translate(_PLAIN) in _NAMES


_PLAIN: Final = str.maketrans("", "", "-_")


def _value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bytes):
        return text(value.decode("latin-1"))
    if depth == 0:
        return text(repr(value)) if isinstance(value, Mapping | list | tuple | set | frozenset) else value
    if isinstance(value, Mapping):
        return fields(value, depth - 1)
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(each, depth - 1) for each in value]
    return value
