"""Files of an allocation's folder. Called by `cluster.py` for the port EngineWatch.

What a task leaves may be anything. Nomad opens what it is asked about, by `fs/stat` too, and waits for ever for the
other end of a pipe: each question would cost it a thread and us a connection. `fs/ls` opens nothing, and says of every
name what it is. `fs/cat` answers HTTP 200 with the error's text where it fails: a size that does not fit tells.
"""

import json
from typing import Any, Final

from shared.adapters.nomad.http import NomadHttp
from shared.errors import NotFound, Refused, Unavailable

_MOST_LISTED: Final = 4 * 1024 * 1024
"""Bytes of the list of a folder: some 30,000 files beside an output."""
_SILENCE_S: Final = 10.0
_NOT_THERE: Final = ("Path escapes", "no such file or directory", "not a directory")


class NomadFiles:
    """Reads small files."""

    def __init__(self, http: NomadHttp) -> None:
        self._http = http

    async def read(self, allocation: str, path: str, limit: int) -> bytes:
        """As `EngineWatch.file` promises; a folder and a way out of the allocation are NotFound too."""
        size = await self._size(allocation, path)
        if size > limit:
            raise Refused(f"{path} has {size} bytes, more than {limit}", code="too_large")
        answer = await self._http.get(f"/v1/client/fs/cat/{allocation}", {"path": path})
        if len(answer.body) > limit:
            raise Refused(f"{path} has grown beyond {limit} bytes", code="too_large")
        if len(answer.body) < size:
            raise Unavailable(f"{path}: got {len(answer.body)} of {size} bytes: {answer.body[:200]!r}")
        return answer.body

    async def _size(self, allocation: str, path: str) -> int:
        folder, _, name = path.rpartition("/")
        found = next((each for each in await self._listed(allocation, folder) if each.get("Name") == name), None)
        if found is None or found.get("IsDir"):
            raise NotFound(f"{path} is not there, or a folder", code="no_file")
        if not str(found.get("FileMode") or "").startswith("-"):
            raise Refused(f"{path} is a link or a pipe or the like", code="no_plain_file")
        return int(found.get("Size") or 0)

    async def _listed(self, allocation: str, folder: str) -> list[dict[str, Any]]:
        """What is in a folder. Raises NotFound for one that is not there, Refused for one with too much in it."""
        body = bytearray()
        try:
            where, what = f"/v1/client/fs/ls/{allocation}", {"path": folder}
            async with self._http.open(where, what, silence_s=_SILENCE_S) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > _MOST_LISTED:
                        raise Refused(f"{folder} holds too many files to be looked at", code="too_many_files")
        except Unavailable as unclear:
            if any(words in unclear.what for words in _NOT_THERE):
                raise NotFound(unclear.what, code="no_file") from unclear
            raise
        try:
            found: list[dict[str, Any]] = json.loads(body) or []
        except ValueError as error:
            raise Unavailable(f"{folder}: the list of its files is not one: {bytes(body[:200])!r}") from error
        return found
