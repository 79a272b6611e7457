"""`serai-platform dead-letters list|show|replay`: what was set aside on the bus, and putting it back.

Works on RabbitMQ (`--amqp-url`, or AMQP_URL) and on the bus of an embedded platform (`--data`). Looking is possible
while the platform runs; on an embedded bus, replaying is not. Imports adapters when it runs, so that other commands
start quickly. Added to the command by `services/__main__.py`.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from shared.contracts.routes import ACCESS, QUEUES, Queue
from shared.errors import Misconfigured, NotFound
from shared.ports import DeadLetter
from shared.runtime import logs

Run = Callable[[Coroutine[Any, Any, None]], object]
"""Runs a command's work; an error that we know becomes a sentence and an exit code."""

Data = Annotated[Path | None, typer.Option(help="Data folder of an embedded platform; wins over --amqp-url.")]
Amqp = Annotated[str, typer.Option(envvar=["SERAI_AMQP_URL", "AMQP_URL"], help="RabbitMQ; its user as in routes.")]
QueueName = Annotated[str, typer.Argument(help="Name of the queue that it was set aside from.")]
Position = Annotated[int, typer.Argument(help="The letter's position, as `list` prints it.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many per queue, oldest first.")]
SECRET_HEADERS: Final = frozenset({"grant"})
BUS_FILE: Final = "bus.sqlite"


def add_to(app: typer.Typer, run: Run) -> None:
    """Add the commands of this module."""

    def told(work: Coroutine[Any, Any, None]) -> None:
        logs.configure("error")
        run(work)

    commands = typer.Typer(no_args_is_help=True, help="Messages that were set aside: look at them, put them back.")

    @commands.command("list")
    def list_letters(
        queue: Annotated[str, typer.Argument(help="One queue only.")] = "", amqp_url: Amqp = "", data: Data = None,
        limit: Limit = 100, json: Annotated[bool, typer.Option(help="One JSON object per line.")] = False,
    ) -> None:  # fmt: skip
        """Print what was set aside, one line each: queue, position, time, type, id, reason."""
        told(print_list(Source(amqp_url, data), queue, limit, _json_line if json else _line))

    @commands.command()
    def show(queue: QueueName, position: Position, amqp_url: Amqp = "", data: Data = None) -> None:
        """Print one letter with its reason, headers and body, as JSON."""
        told(print_one(Source(amqp_url, data), queue, position))

    @commands.command()
    def replay(
        queue: QueueName, positions: Annotated[list[int], typer.Argument(help="Positions as `list` prints them.")],
        amqp_url: Amqp = "", data: Data = None,
    ) -> None:  # fmt: skip
        """Put letters back into their queue, as if new. Mend what they died of first."""
        told(replay_all(Source(amqp_url, data), queue, positions))

    app.add_typer(commands, name="dead-letters")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the dead letters are."""

    amqp_url: str
    data: Path | None

    async def look(self, queue: Queue, limit: int) -> Sequence[DeadLetter]:
        """The letters of a queue, oldest first."""
        if self._on_rabbitmq:
            async with self._rabbitmq() as bus:
                found: Sequence[DeadLetter] = await bus.dead_letters(queue, limit=limit)
                return found
        from shared.adapters.embedded_bus import look

        return await look(self._file, queue, limit)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        """The bus, to replay on."""
        if self._on_rabbitmq:
            async with self._rabbitmq() as bus:
                yield bus
            return
        from shared.adapters.embedded_bus import EmbeddedBus

        if not self._file.exists():
            raise Misconfigured(f"there is no bus in {self._file.parent}: say --data FOLDER or --amqp-url URL")
        embedded = await EmbeddedBus.open(self._file)
        try:
            yield embedded
        finally:
            await embedded.close()

    @property
    def _on_rabbitmq(self) -> bool:
        return self.data is None and bool(self.amqp_url)

    @property
    def _file(self) -> Path:
        return (self.data or Path(".serai")) / BUS_FILE

    @contextlib.asynccontextmanager
    async def _rabbitmq(self) -> AsyncIterator[Any]:
        from shared.adapters.rabbitmq import AmqpBus

        bus = await AmqpBus.open(self.amqp_url, access=ACCESS["operator"])
        try:
            yield bus
        finally:
            await bus.close()


async def print_list(source: Source, name: str, limit: int, shape: Callable[[DeadLetter], str]) -> None:
    """Print the letters of one queue, or of all."""
    queues = [_queue(name)] if name else QUEUES
    found = [letter for queue in queues for letter in await source.look(queue, limit)]
    for letter in found:
        print(shape(letter))
    if not found and shape is _line:
        print("nothing was set aside")


async def print_one(source: Source, name: str, position: int) -> None:
    """Print a letter. Raises NotFound."""
    letter = await _letter(source.look, _queue(name), position)
    headers = {
        key: f"{value[:12]}..." if key in SECRET_HEADERS else value for key, value in letter.message.headers.items()
    }
    print(orjson.dumps(_summary(letter) | {
        "exchange": letter.message.exchange, "routing_key": letter.message.routing_key,
        "content_type": letter.message.content_type, "headers": headers, "body": _body(letter.message.body),
    }, option=orjson.OPT_INDENT_2).decode())  # fmt: skip


async def replay_all(source: Source, name: str, positions: Sequence[int]) -> None:
    """Put letters back, in the order given. Raises NotFound at the first that is not there."""
    queue = _queue(name)
    async with source.open() as bus:
        for position in positions:
            letter = await _letter(lambda queue, limit: bus.dead_letters(queue, limit=limit), queue, position)
            await bus.replay_dead_letter(queue, position)
            print(f"{queue.name} {position}: {letter.message.type} {letter.message.id} is back in its queue")


async def _letter(
    look: Callable[[Queue, int], Awaitable[Sequence[DeadLetter]]], queue: Queue, position: int
) -> DeadLetter:
    for letter in await look(queue, 1_000_000):
        if letter.position == position:
            return letter
    raise NotFound(f"{queue.name} has no dead letter {position}; `serai-platform dead-letters list` shows which it has")


def _queue(name: str) -> Queue:
    for queue in QUEUES:
        if queue.name == name:
            return queue
    raise Misconfigured(f"there is no queue {name!r}; there are: {', '.join(queue.name for queue in QUEUES)}")


def _summary(letter: DeadLetter) -> dict[str, object]:
    return {
        "queue": letter.queue, "position": letter.position, "at": letter.at, "type": letter.message.type,
        "id": letter.message.id, "reason": letter.reason,
    }  # fmt: skip


def _line(letter: DeadLetter) -> str:
    summary = _summary(letter) | {"at": letter.at.isoformat(timespec="seconds")}
    return "  ".join(str(value) for value in summary.values()).replace("\n", " ")


def _json_line(letter: DeadLetter) -> str:
    return orjson.dumps(_summary(letter)).decode()


def _body(body: bytes) -> object:
    """As JSON if it is, else as text, else as hexadecimal digits."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return body.decode()
        except UnicodeDecodeError:
            return {"hex": body.hex()}
