"""The templates that the platform writes, and no others: text between delimiters that never occur in it, and a key of
a variable. Pure.

`{{with nomadVar "PATH"}}{{(index . "KEY").Value | base64Decode}}{{end}}` is the whole of the second form.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .jobspec import Row

Read = Callable[[str], Mapping[str, str] | None]


class Missing(Exception):
    """A variable is not there (yet); Nomad waits for it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Unsupported(Exception):
    """The template asks for what the embedded agent does not do; the text says what."""


@dataclass(frozen=True, slots=True)
class _Key:
    path: str
    key: str


def render(template: Row, read: Read) -> bytes:
    """The bytes of the file. Raises Missing, Unsupported."""
    text, left, right = template["EmbeddedTmpl"], template["LeftDelim"], template["RightDelim"]
    if text == f'{left}""{right}':
        return b""  # prints nothing: how an empty file is written, since Nomad refuses an empty template
    if left not in text:
        return str(text).encode()
    asked = _key(text, left, right)
    items = read(asked.path)
    if items is None:
        raise Missing(asked.path)
    try:
        return base64.b64decode(items.get(asked.key, ""), validate=True)
    except (binascii.Error, ValueError):
        raise Unsupported(f"template: error calling base64Decode: {asked.key!r} is not base64") from None


def _key(text: str, left: str, right: str) -> _Key:
    form = (
        r'with nomadVar "(?P<path>[^"]+)"', r'\(index \. "(?P<key>[^"]+)"\)\.Value \| base64Decode', "end",
    )  # fmt: skip
    whole = "".join(re.escape(left) + r"\s*" + part + r"\s*" + re.escape(right) for part in form)
    found = re.fullmatch(whole, text)
    if found is None:
        raise Unsupported("template functions are not supported")
    return _Key(found["path"], found["key"])
