"""The `nomad` of this machine: found, and asked whether it is one that we can work with."""

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import Final

from shared.errors import Misconfigured

OLDEST: Final = (1, 10)
_ANSWER_S: Final = 20.0
_SAYS: Final = re.compile(r"^Nomad v(\d+)\.(\d+)\.(\d+)", re.MULTILINE)


def installed(asked: str = "") -> Path | None:
    """The binary: as asked, or `NOMAD_BIN`, or the `nomad` on PATH; None when there is none that can be run."""
    named = asked or os.environ.get("NOMAD_BIN") or shutil.which("nomad")
    path = Path(named) if named else None
    return path.resolve() if path and path.is_file() and os.access(path, os.X_OK) else None


async def check(binary: Path) -> tuple[int, ...]:
    """Its version. Raises Misconfigured for what is no nomad, or one that is too old, with what it said."""
    mend = "name another (NOMAD=/path/to/nomad), or use NOMAD=embedded"
    said = await _said(binary)
    found = _SAYS.search(said)
    if found is None:
        raise Misconfigured(f"{binary} is no nomad: `{binary.name} version` said {said.strip()[:200]!r}; {mend}")
    version = tuple(int(part) for part in found.groups())
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise Misconfigured(f"{binary} is Nomad {'.'.join(map(str, version))}, older than {oldest}: {mend}")
    return version


async def _said(binary: Path) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            str(binary), "version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        raise Misconfigured(f"{binary} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(_ANSWER_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"nothing within {_ANSWER_S:g} s"
    return output.decode(errors="replace")
