"""The refusal of a token, and the check of its short identifiers. Pure; used by everything that reads claims."""

from collections.abc import Mapping
from typing import Any, Final

from shared.errors import Refused

MOST_IDENTIFIER: Final = 255


class BadToken(Refused):
    """Nobody is behind this token. The words never repeat a value from it."""

    def __init__(self, why: str, code: str = "unauthenticated") -> None:
        super().__init__(f"the access token is not accepted: {why}", code=code)


def identifier(payload: Mapping[str, Any], name: str) -> str:
    """A claim that is printable ASCII, so that it can stand in a log line, a header and a table. Raises BadToken."""
    value = payload.get(name)
    short = isinstance(value, str) and 0 < len(value) <= MOST_IDENTIFIER
    if not short or not (value.isascii() and value.isprintable()):  # type: ignore[union-attr]  # a string by `short`
        raise BadToken(f"`{name}` is missing or not a short printable string")
    return str(value)
