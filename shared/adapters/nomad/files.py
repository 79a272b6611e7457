"""Files of an allocation's folder. Called by `cluster.py` for the port EngineWatch.

`fs/cat` answers HTTP 200 with the error's text where it fails, so a file is asked for by `fs/stat` first: that one
answers with a status, and with the size.
"""

from shared.adapters.nomad.http import NomadHttp
from shared.errors import NotFound, Refused, Unavailable


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
        try:
            answer = await self._http.get(f"/v1/client/fs/stat/{allocation}", {"path": path})
        except Unavailable as unclear:
            if "Path escapes" in unclear.what:
                raise NotFound(unclear.what, code="no_file") from unclear
            raise
        found = answer.json()
        if found.get("IsDir"):
            raise NotFound(f"{path} is a folder", code="no_file")
        return int(found.get("Size") or 0)
