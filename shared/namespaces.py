"""The Nomad namespace of a VO: one for each, so that policies at a site can tell VOs apart. Pure.

Nomad takes `[a-zA-Z0-9-]`, 1 to 128 long (reference: Nomad's `validNamespaceName`); a VO's name may have `.`, `_` and
`-` in it and be twice as long. No two VOs share a namespace, whatever their names are:

- a run of separators becomes as many dashes as its number among all runs: `.` 1, `-` 2, `_` 3, `..` 4, `.-` 5 ...
  (bijective numeration with three digits), so `vo.climate.example` is `vo-climate-example`, `eosc-synergy.eu` is
  `eosc--synergy-eu`;
- what would be too long, or would be Nomad's own `default`, is cut, with a digest of the VO and a dash at the end,
  where no other has one.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import StringConstraints

MOST: Final = 128
DEFAULT: Final = "default"
"""Nomad's own namespace, which everybody at a site may share: never a VO's."""

NamespaceName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9-]{1,128}$")]

_SEPARATORS: Final = ".-_"
_DIGEST: Final = 32
_RUN: Final = re.compile(r"[._-]+")


def namespace_of(vo: str, named: Mapping[str, str] | None = None) -> str:
    """The namespace of a VO. `named` holds those that sites had before (VO -> namespace), no two alike: a VO whose own
    one was given away there gets one with a digest."""
    given = named or {}
    if vo in given:
        return given[vo]
    plain = _RUN.sub(_dashes, vo)
    return _marked(vo, plain) if len(plain) > MOST or plain == DEFAULT or plain in given.values() else plain


def _dashes(run: "re.Match[str]") -> str:
    number = 0
    for separator in run[0]:
        number = min(number * len(_SEPARATORS) + _SEPARATORS.index(separator) + 1, MOST + 1)
    return "-" * number


def _marked(vo: str, plain: str) -> str:
    digest = hashlib.sha256(vo.encode()).hexdigest()[:_DIGEST]
    return f"{plain[: MOST - _DIGEST - 2]}-{digest}-"
