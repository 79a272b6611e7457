"""One life of the platform, which a crash may end before or after any call of any port.

The crash: from that instant on nothing is heard of any call and none is begun, and the folder is copied as it is on the
disk. The next life starts on the copy; whatever the old one still writes while it is taken down goes nowhere.

Of a crash after a call only what was durable by then is left, as when a machine loses its power: hard on whoever tells
before it is written. Before a call, all that was asked for earlier is let happen first, as when a process is killed:
hard on whoever settles before it is done.
"""

import asyncio
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from shared import ports
from tests import pacing
from tests.system.crash.calls import CRASHED_PORTS, Kind, methods

_NOT_COPIED: Final = re.compile(r"lock|spans\.sqlite.*|.*-shm")
_SETTLES_S: Final = 0.05
"""Longer than the bus keeps back what nobody waits for."""
_WHO: Final = re.compile(r"-?[0-9].*|:.*")


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """Before or after the `number`-th call (from 1) named `call` since the path began."""

    call: str
    number: int
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.call} #{self.number}"


class Life:
    """Comes between the services and their ports (`around`), counts calls, and dies at `target`."""

    def __init__(self, target: Point | None, folder: Path, remains: Path) -> None:
        self.calls: list[tuple[str, int]] = []
        self.met: set[str] = set()
        self.died = asyncio.Event()
        self.counting = False
        self._target = target
        self._folder = folder
        self._remains = remains
        self._counts: Counter[str] = Counter()
        self._hung: set[asyncio.Future[None]] = set()
        self._dying = False
        self._buried = False

    def around(self, name: str, port: Any) -> Any:
        """What `platform(..., around=...)` is handed."""
        return _Between(name, port, CRASHED_PORTS[name], self)

    def bury(self) -> None:
        """Let the tasks that hang in a call end, so that the dead platform can be taken down."""
        self._buried = True
        for future in tuple(self._hung):
            future.cancel()

    async def before(self, call: str) -> int:
        """The number of this call, or the crash before it."""
        await self.lives()
        if not self.counting:
            return 0
        self._counts[call] += 1
        number = self._counts[call]
        self.calls.append((call, number))
        await self._crash_at(Point(call, number, after=False))
        return number

    async def after(self, call: str, number: int) -> None:
        """The crash after a call, or nothing."""
        await self.lives()
        await self._crash_at(Point(call, number, after=True))

    async def lives(self) -> None:
        """Return while the platform lives; in a dead one, never."""
        if self._dying:
            await self._hang()

    async def _crash_at(self, point: Point) -> None:
        if point == self._target:
            self._dying = True
            if not point.after:
                await pacing.pause(_SETTLES_S)
            copy_folder(self._folder, self._remains)
            self.died.set()
            await self._hang()

    async def _hang(self) -> NoReturn:
        if not self._buried:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._hung.add(future)
            try:
                await future
            finally:
                self._hung.discard(future)
        raise asyncio.CancelledError


def copy_folder(folder: Path, to: Path) -> None:
    """The files as they are now. Journals first: what a checkpoint moves meanwhile is then there twice, not never."""
    to.mkdir(parents=True)
    for file in sorted(folder.iterdir(), key=lambda each: not each.name.endswith("-wal")):
        if file.is_file() and not _NOT_COPIED.fullmatch(file.name):
            shutil.copy(file, to / file.name)


class _Between:
    """A port with a `Life` between it and whoever calls it. Only what its Protocol names is there."""

    def __init__(self, name: str, port: Any, protocol: type, life: Life) -> None:
        for method, kind in methods(protocol).items():
            real = getattr(port, method)
            call = f"{name}.{method}"
            known = f"{protocol.__name__}.{method}"
            match kind:
                case Kind.CALL:
                    setattr(self, method, _call(real, call, known, life))
                case Kind.ITERATOR:
                    setattr(self, method, _iterator(real, call, known, life))
                case Kind.CONTEXT:
                    setattr(self, method, _context(real, call, known, life))
                case Kind.VALUE:
                    setattr(self, method, real)


def _call(real: Callable[..., Awaitable[Any]], name: str, known: str, life: Life) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **given: Any) -> Any:
        label = f"{name} by {_who()}"
        number = await life.before(label)
        life.met.add(known)
        try:
            result = await real(*args, **given)
        except Exception:
            await life.lives()
            raise
        await life.after(label, number)
        return result

    return call


def _iterator(real: Callable[..., Any], name: str, known: str, life: Life) -> Callable[..., AsyncIterator[Any]]:
    async def iterate(*args: Any, **given: Any) -> AsyncIterator[Any]:
        label = f"{name} by {_who()}"
        number = await life.before(label)
        life.met.add(known)
        async with aclosing(real(*args, **given)) as items:
            await life.after(label, number)
            async for item in _items(items, f"{name}[next] by {_who()}", life):
                yield item

    return iterate


def _context(real: Callable[..., Any], name: str, known: str, life: Life) -> Callable[..., Any]:
    @asynccontextmanager
    async def context(*args: Any, **given: Any) -> AsyncIterator[AsyncIterator[Any]]:
        label = f"{name} by {_who()}"
        number = await life.before(label)
        life.met.add(known)
        async with real(*args, **given) as items:
            await life.after(label, number)
            yield _deliveries(items, name.replace("consume", "delivery"), life)

    return context


async def _deliveries(items: AsyncIterator[Any], name: str, life: Life) -> AsyncIterator[Any]:
    async for delivery in _items(items, f"{name}[next] by {_who()}", life):
        yield _Between(name, delivery, ports.Delivery, life)


async def _items(items: AsyncIterator[Any], label: str, life: Life) -> AsyncIterator[Any]:
    async for item in items:
        number = await life.before(label)
        yield item
        await life.after(label, number)
    await life.lives()


def _who() -> str:
    """The task that calls, without ids and numbers: it tells one service's reads from each other."""
    task = asyncio.current_task()
    name = _WHO.sub("", task.get_name()) if task is not None else ""
    return "a request" if name in ("", "Task") else name
