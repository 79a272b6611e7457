"""The agent's journal: every transaction appended before anybody is told of it, folded into snapshots now and then.

Files in the data directory: `snapshot-N.ndjson` (everything before journal N) and `journal-N.ndjson`. A crash between
two steps leaves at worst an older snapshot and one journal more. Writes happen in a thread, many transactions to one
sync (group commit).
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

SNAPSHOT_CHUNK = 500
log = logging.getLogger(__name__)


class Journal:
    """Appends records and calls back, in order, when they are on disk."""

    def __init__(
        self,
        directory: Path,
        *,
        fsync: bool = True,
        snapshot_bytes: int = 32 * 1024 * 1024,
        on_failure: Callable[[OSError], None] = lambda error: None,
    ) -> None:
        self.directory = directory
        self.fsync = fsync
        self.snapshot_bytes = snapshot_bytes
        self._generation = 0
        self._size = 0
        self._file: int = -1
        self._pending: list[bytes] = []
        self._callbacks: list[Callable[[], None]] = []
        self._writing: asyncio.Task[None] | None = None
        self._folding: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agent-journal")
        self._on_failure = on_failure
        self.failed: OSError | None = None

    # -- reading at start ----------------------------------------------------------------------------------------------

    def load(self) -> Iterator[dict[str, Any]]:
        """All records since the newest whole snapshot; then the journal is open for appending. Blocking."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        snapshots, journals = self._numbers("snapshot"), self._numbers("journal")
        newest = max(snapshots, default=0)
        if snapshots:
            yield from _records(self._path("snapshot", newest))
        for number in sorted(n for n in journals if n >= newest):
            yield from _records(self._path("journal", number))
        self._generation = max([newest, *journals], default=0)
        self._open()

    def _numbers(self, kind: str) -> list[int]:
        return [int(p.stem.rpartition("-")[2]) for p in self.directory.glob(f"{kind}-*.ndjson")]

    def _path(self, kind: str, number: int) -> Path:
        return self.directory / f"{kind}-{number}.ndjson"

    def _open(self) -> None:
        path = self._path("journal", self._generation)
        if path.exists():
            _cut_torn_line(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size

    # -- appending -----------------------------------------------------------------------------------------------------

    def append(self, records: Iterable[bytes], done: Callable[[], None]) -> None:
        """Queue records; `done` is called on the loop when they are durable. Raises what broke the journal before."""
        if self.failed is not None:
            raise self.failed
        self._pending.extend(record for record in records if record)
        self._callbacks.append(done)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="journal-writer")

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._callbacks:
                records, self._pending = self._pending, []
                callbacks, self._callbacks = self._callbacks, []
                if records:
                    data = b"\n".join(records) + b"\n"
                    self._size += len(data)
                    await loop.run_in_executor(self._pool, self._append_bytes, self._file, data)
                for done in callbacks:
                    done()
        except OSError as error:
            # A journal that cannot be written must not look written: nothing is told from here on.
            self.failed = error
            self._on_failure(error)
        finally:
            self._writing = None

    def _append_bytes(self, file: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        if self.fsync:
            os.fdatasync(file)

    # -- folding -------------------------------------------------------------------------------------------------------

    @property
    def wants_snapshot(self) -> bool:
        """The journal has grown beyond its limit."""
        return self._size > self.snapshot_bytes and self._folding is None and self._writing is None

    def fold(self, ops: list[list[Any]], index: int) -> None:
        """Begin a new journal and write what was before as a snapshot, in the thread."""
        old, self._generation = self._file, self._generation + 1
        self._open()
        os.close(old)
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._pool, self._write_snapshot, ops, index, self._generation)

        async def fold() -> None:
            try:
                await work
            except OSError as error:
                log.error("snapshot %d was not written, the journals before it stay: %r", self._generation, error)
            finally:
                self._folding = None

        self._folding = asyncio.create_task(fold(), name="journal-snapshot")

    def _write_snapshot(self, ops: list[list[Any]], index: int, generation: int) -> None:
        temporary = self.directory / f"snapshot-{generation}.tmp"
        with temporary.open("wb") as file:
            for start in range(0, len(ops), SNAPSHOT_CHUNK):
                chunk = ops[start : start + SNAPSHOT_CHUNK]
                file.write(orjson.dumps({"i": index, "t": "Snapshot", "o": chunk}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path("snapshot", generation))
        for kind in ("snapshot", "journal"):
            for number in self._numbers(kind):
                if number < generation:
                    self._path(kind, number).unlink(missing_ok=True)

    async def settled(self) -> None:
        """Until nothing waits to be written."""
        while self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def folded(self) -> None:
        """Until no snapshot is being written."""
        if self._folding is not None:
            await asyncio.wait([self._folding])

    async def close(self) -> None:
        """Write what is pending and let go."""
        await self.settled()
        await self.folded()
        self._pool.shutdown(wait=True)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines only: a torn last line was never confirmed to anybody."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield orjson.loads(line)


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        data = file.read()
        end = data.rfind(b"\n") + 1
        if end != len(data):
            file.truncate(end)
