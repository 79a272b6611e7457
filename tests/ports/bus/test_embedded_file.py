"""The embedded bus and its file: who may read it, and that one process at a time has it."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from shared.adapters.embedded_bus import EmbeddedBus, file, look
from shared.contracts.envelope import Message
from shared.errors import Misconfigured, Unavailable
from tests.ports.bus.buses import DEADLINE_S, EmbeddedUnderTest, ids, next_of

pytestmark = pytest.mark.fast
HOLDER = """
import asyncio, sys
from pathlib import Path
from shared.adapters.embedded_bus import EmbeddedBus

async def hold():
    bus = await EmbeddedBus.open(Path(sys.argv[1]))
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await bus.close()

asyncio.run(hold())
"""


async def test_the_file_is_for_its_owner_alone(embedded: EmbeddedUnderTest) -> None:
    embedded.path.chmod(0o644)
    await embedded.reopen()
    await embedded.publish(1)
    files = sorted(embedded.path.parent.glob("bus.sqlite*"))
    assert [file.name.removeprefix("bus.sqlite") for file in files] == ["", "-shm", "-wal", ".lock"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_a_second_bus_on_the_file_is_refused_with_the_name_of_the_first(embedded: EmbeddedUnderTest) -> None:
    with pytest.raises(Misconfigured, match=rf"in use by process {os.getpid()} .*--data"):
        await EmbeddedBus.open(embedded.path)
    await embedded.publish(1)
    await embedded.reopen()


async def test_another_process_keeps_the_file_until_it_ends_however_that_is(tmp_path: Path) -> None:
    path = tmp_path / "bus.sqlite"
    for ending in (signal.SIGTERM, signal.SIGKILL):
        holder = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLDER, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        async with asyncio.timeout(DEADLINE_S):
            assert holder.stdout is not None
            assert await holder.stdout.readline() == b"open\n"
            with pytest.raises(Misconfigured, match=f"process {holder.pid}"):
                await EmbeddedBus.open(path)
            holder.send_signal(ending)
            await holder.communicate()
        await (await EmbeddedBus.open(path)).close()


async def test_a_program_that_holds_the_database_is_told_from_a_broken_disk(tmp_path: Path) -> None:
    path = tmp_path / "bus.sqlite"
    with closing(sqlite3.connect(path)) as shell:
        shell.execute("begin exclusive")
        with pytest.raises(Unavailable, match=r"locked; another program"):
            await EmbeddedBus.open(path)
    await (await EmbeddedBus.open(path)).close()


async def test_dead_letters_can_be_looked_at_while_the_bus_is_in_use(embedded: EmbeddedUnderTest) -> None:
    await embedded.publish(1)
    async with embedded.bus.consume(embedded.queue, prefetch=1) as deliveries:
        await (await next_of(deliveries)).dead_letter("no use")
    assert [one.message.id for one in await look(embedded.path, embedded.queue)] == ids(1)
    with pytest.raises(Misconfigured, match="--data"):
        await look(embedded.path.parent / "elsewhere" / "bus.sqlite", embedded.queue)


def test_looking_for_old_messages_costs_the_same_however_many_young_ones_there_are(tmp_path: Path) -> None:
    """Days of them are kept; all of them were read each 256 messages."""

    def steps(kept: int) -> int:
        """Of SQLite's machine, in tens."""
        with closing(file.connect(tmp_path / f"{kept}.sqlite")) as raw:
            file.append(raw, ((n, Message(f"{n}", "t", "e", "k", b"", "", {})) for n in range(1, 4)), at=1)
            file.append(raw, ((n, Message(f"{n}", "t", "e", "k", b"", "", {})) for n in range(4, kept)), at=9)
            counted = []
            raw.set_progress_handler(lambda: counted.append(1), 10)
            assert file.trim(raw, "e", 5, ["a queue"], 0) is None
            raw.set_progress_handler(None, 0)
            assert [position for position, _ in file.page(raw, "e", 0, 2)] == [4, 5]
            return len(counted)

    assert steps(2000) == steps(20)
