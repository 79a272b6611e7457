"""The one place that knows exchanges, queues and routing keys. Adapters declare from it, AsyncAPI is made from it."""

from dataclasses import dataclass
from typing import Final

from shared.contracts import commands, events
from shared.contracts.commands import Command
from shared.contracts.events import AttemptEvent, Event, JobEvent, JobProgress, SiteEvent
from shared.ids import vo_token


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable work queue: bound to `exchange` by `keys`, in order, with dead letters.

    `attempts` is how often a message is tried before it is set aside; `max_length` bounds the queue (publishing
    beyond it raises Unavailable). With `single_active`, one consumer at a time gets deliveries, the longest there;
    the others wait until it is gone, so that order holds over several copies of a service.
    """

    name: str
    exchange: str
    keys: tuple[str, ...]
    attempts: int = 5
    max_length: int = 1_000_000
    single_active: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """An append-only log that never rejects, read from offsets that the reader keeps. `max_age_s` bounds it."""

    name: str
    exchange: str
    keys: tuple[str, ...] = ("#",)
    max_age_s: int = 30 * 86_400


COMMANDS_EXCHANGE: Final = "serai.commands"
EVENTS_EXCHANGE: Final = "serai.events"
REPORTS_EXCHANGE: Final = "serai.reports"
DEAD_LETTERS_EXCHANGE: Final = "serai.dead"
"""What was set aside, by the name of its queue."""
RETRY_EXCHANGE: Final = "serai.retry"
"""What waits for another try, or goes straight back to its queue, by the name of the queue that it waits in."""
EXCHANGES: Final = (COMMANDS_EXCHANGE, EVENTS_EXCHANGE, REPORTS_EXCHANGE)

SCHEDULER_COMMANDS: Final = Queue("scheduler.commands", COMMANDS_EXCHANGE, ("job.*", "site.*"), single_active=True)
SCHEDULER_REPORTS: Final = Queue("scheduler.reports", REPORTS_EXCHANGE, ("#",), single_active=True)
EVENT_LOG: Final = Stream("events.log", EVENTS_EXCHANGE)

QUEUES: Final = (SCHEDULER_COMMANDS, SCHEDULER_REPORTS)
STREAMS: Final = (EVENT_LOG,)

RECEIVERS: Final[dict[type[Command], Queue]] = dict.fromkeys(commands.COMMANDS, SCHEDULER_COMMANDS)
"""Which queue each command ends in: one receiver each."""

READERS: Final[dict[type[Event], tuple[Queue | Stream, ...]]] = {
    **dict.fromkeys(events.JOB_EVENTS, (EVENT_LOG,)),
    **dict.fromkeys(events.ATTEMPT_EVENTS, (EVENT_LOG, SCHEDULER_REPORTS)),
    **dict.fromkeys(events.SITE_EVENTS, (EVENT_LOG, SCHEDULER_REPORTS)),
}
"""Who of us reads each event; outsiders read them all through the gateway."""


@dataclass(frozen=True, slots=True)
class Access:
    """What one user of the bus does there, and may do: a broker's permissions are made from it.

    `publishes`: (exchange, patterns of routing keys); `feeds`: the streams that this ends in. `consumes` brings the
    right to retry and to set aside; `keeps_dead` the right to look at dead letters and to replay them.
    """

    publishes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    feeds: tuple[Stream, ...] = ()
    consumes: tuple[Queue, ...] = ()
    reads: tuple[Stream, ...] = ()
    keeps_dead: tuple[Queue, ...] = ()


ACCESS: Final[dict[str, Access]] = {
    "gateway": Access(publishes=((COMMANDS_EXCHANGE, ("job.*", "site.*")),), reads=(EVENT_LOG,)),
    "scheduler": Access(
        publishes=((EVENTS_EXCHANGE, ("vo.*.job.*",)),),
        feeds=(EVENT_LOG,),
        consumes=(SCHEDULER_COMMANDS, SCHEDULER_REPORTS),
    ),
    "monitor": Access(
        publishes=(
            (EVENTS_EXCHANGE, ("vo.*.attempt.*", "vo.*.site.*", "site.*.*")),
            (REPORTS_EXCHANGE, ("vo.*.attempt.*", "site.*.*")),
        ),
        feeds=(EVENT_LOG,),
    ),
    "operator": Access(keeps_dead=QUEUES),
}
"""Who may do what on the bus. `operator` is who looks after dead letters. Auth is not on the bus."""

EVERYTHING: Final = Access(
    publishes=tuple((exchange, ("#",)) for exchange in EXCHANGES),
    feeds=STREAMS,
    consumes=QUEUES,
    reads=STREAMS,
    keeps_dead=QUEUES,
)
"""For one user that all services share: the embedded platform, and brokers that serve nobody else."""


def command_route(command: type[Command]) -> tuple[str, str]:
    """(exchange, routing key) of a command: the key is its kind."""
    return COMMANDS_EXCHANGE, command.kind


def event_routes(event: Event) -> tuple[tuple[str, str], ...]:
    """Every (exchange, routing key) that an event is published with.

    `vo.<vo>.job.<state>`, `vo.<vo>.attempt.<status>`, `vo.<vo>.site.<what>`, `site.<site>.<what>`; the VO is one
    word (`.` written `~`). What the scheduler needs goes to its own exchange as well.
    """
    match event:
        case JobProgress():
            return ((EVENTS_EXCHANGE, f"vo.{vo_token(event.vo)}.job.progress"),)
        case JobEvent():
            return ((EVENTS_EXCHANGE, f"vo.{vo_token(event.vo)}.job.{event.state}"),)
        case AttemptEvent():
            key = f"vo.{vo_token(event.vo)}.attempt.{event.status}"
            return ((EVENTS_EXCHANGE, key), (REPORTS_EXCHANGE, key))
        case SiteEvent(vo=str() as vo):
            return ((EVENTS_EXCHANGE, f"vo.{vo_token(vo)}.site.{event.what}"),)
        case SiteEvent():
            key = f"site.{event.site}.{event.what}"
            return ((EVENTS_EXCHANGE, key), (REPORTS_EXCHANGE, key))
    raise TypeError(f"no route for {type(event).__name__}: add it to shared/contracts/routes.py")


def key_matches(pattern: str, key: str) -> bool:
    """AMQP topic matching: `*` is one word, `#` any number of words, also none."""
    return _words_match(pattern.split("."), key.split("."))


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return _words_match(rest, words) or (bool(words) and _words_match(pattern, words[1:]))
    return bool(words) and head in ("*", words[0]) and _words_match(rest, words[1:])
