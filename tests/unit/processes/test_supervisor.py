"""Processes that a supervisor keeps: how it ends them."""

import asyncio
from pathlib import Path

from services.local.supervising import Supervisor

_WAITS_FOR_THE_OTHER = """
ended() { touch "$1"; while [ ! -e "$2" ]; do sleep 0.05; done; exit 0; }
trap 'ended "$0.told" "$1.told"' TERM
touch "$0.ready"
while :; do sleep 0.05; done
"""


async def test_all_are_told_to_end_before_any_has_ended(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "logs")
    for one, other in (("a", "b"), ("b", "a")):
        command = ["sh", "-c", _WAITS_FOR_THE_OTHER, str(tmp_path / one), str(tmp_path / other)]
        await supervisor.add(one, command, {})
    async with asyncio.timeout(20):
        while not all((tmp_path / f"{name}.ready").exists() for name in "ab"):
            await asyncio.sleep(0)
        await supervisor.stop()
    codes = {name: kept.process.returncode for name, kept in supervisor.kept.items() if kept.process is not None}
    assert codes == {"a": 0, "b": 0}
