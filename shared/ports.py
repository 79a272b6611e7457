"""The ports: everything that a service asks of the world. The promises in the docstrings are the interface.

`tests/ports/` holds one conformance suite per port; every adapter passes the same suite. A promise that an adapter
cannot keep is listed there by name. All waits have deadlines: an adapter raises `Unavailable` rather than hang.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from shared.contracts.envelope import Message
from shared.contracts.routes import Queue, Stream
from shared.contracts.subscriptions import Letter
from shared.engine import (
    AllocationSeen,
    AttemptOrder,
    Closing,
    Heartbeat,
    Line,
    Listing,
    LogChunk,
    Plan,
    Presence,
    Submission,
)
from shared.ids import AttemptId
from shared.site import Site

T = TypeVar("T")

Clock = Callable[[], datetime]
"""Now, timezone-aware UTC."""


# -- message bus --------------------------------------------------------------------------------------------------


class Delivery(Protocol):
    """One message handed to one consumer. Settle it exactly once; unsettled ones come again after a crash."""

    @property
    def message(self) -> Message: ...

    @property
    def attempt(self) -> int:
        """1 at first, one more after each `retry` and after each crash of a consumer that held it."""

    async def ack(self) -> None:
        """It is done; it never comes again."""

    async def retry(self, after_s: float) -> None:
        """Give it back; it comes again, not earlier than about `after_s`. Others may overtake it."""

    async def dead_letter(self, reason: str) -> None:
        """Set it aside durably, with the reason, for an operator to look at and replay."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`position` names it for `replay_dead_letter` and grows."""

    position: int
    queue: str
    reason: str
    message: Message
    at: datetime


class MessageBus(Protocol):
    """Durable, at-least-once message passing along `shared/contracts/routes.py`."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when every message is durable in every queue and stream bound to it, in the given order.

        Calls that overlap keep the order in which they were made, where each has at most 128 messages and none fails.
        Raises Unavailable when that is not known (then publish again: readers recognise doubles by id), and
        Misconfigured when a message has nowhere to go.
        """

    def consume(self, queue: Queue, *, prefetch: int) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Deliveries in order, at most `prefetch` unsettled at a time.

        The iterator raises Unavailable when the connection is gone; open it again to go on. Leaving the context
        gives unsettled deliveries back.
        """

    def read(self, stream: Stream, *, after: int | None) -> AsyncIterator[tuple[int, Message]]:
        """Every message of a stream in order with its offset, from the first one behind `after` (None = oldest).

        Offsets grow but may have holes. Waits for more at the end, for ever. Raises Unavailable when the connection
        is gone, or the stream ends before `after` (it was made anew). When messages behind `after` have been aged out,
        the first offset simply is a later one.
        """

    async def depth(self, queue: Queue) -> int:
        """Messages waiting or unsettled."""

    async def dead_letters(self, queue: Queue, *, limit: int = 100) -> Sequence[DeadLetter]:
        """What was set aside, oldest first."""

    async def replay_dead_letter(self, queue: Queue, position: int) -> None:
        """Put a dead letter back into its queue with its attempt count at 1. Raises NotFound."""

    async def ready(self) -> None:
        """Return when the bus can be used; raise Unavailable with the culprit."""


# -- readers outside of the platform -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """How a queue was found a moment ago: messages in it, those that are handed out included; readers that listen."""

    messages: int
    readers: int


class SubscriberBroker(Protocol):
    """Queues for outsiders. Each has one login of its own name, which may read this queue and do nothing else.

    Every call may be repeated, and names are never used again. Raises Unavailable when the outcome is not known.
    """

    async def open(self, name: str, password: str) -> None:
        """Make queue and login. A queue that is there is kept; the password is replaced, open connections stay."""

    async def shut_out(self, name: str) -> None:
        """Take the login away and close its connections; the queue stays as it is."""

    async def remove(self, name: str) -> None:
        """Take the login away, close its connections, delete the queue with what is in it."""

    async def publish(self, name: str, letters: Sequence[Letter]) -> None:
        """Return when every letter is durable in the queue, in order. Raises NotFound when there is no such queue.

        No reader can make this fail or slow for another's queue. Beyond its length a queue drops its oldest.
        """

    async def seen(self) -> Mapping[str, QueueSeen]:
        """Every queue; figures may be `lag_s` old."""

    @property
    def lag_s(self) -> float:
        """The greatest age in seconds of what `seen` tells."""

    @property
    def address(self) -> str:
        """Where readers connect, without a login: an AMQP URL."""

    async def close(self) -> None: ...


# -- store --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """`fence` grows with every change of holder; writes of the leader check it (`Store.check_lease`)."""

    name: str
    holder: str
    fence: int
    until: datetime


class Store(Protocol):
    """A service's own database, reached by SQLAlchemy Core. Bodies are synchronous and must not wait on anything."""

    async def transact(self, body: Callable[[Connection], T]) -> T:
        """Run `body` in one serialisable transaction; return when it is durable.

        An exception rolls back this body alone and is raised here. Bodies run one after another in the order of
        the calls; several may share one commit. Raises Unavailable when the database is away or too much is queued.
        """

    async def read(self, body: Callable[[Connection], T]) -> T:
        """Run a small read-only `body` (point reads, one indexed page) on a recent committed snapshot.

        Sees at least everything whose `transact` has returned.
        """

    async def read_long(self, body: Callable[[Connection], T]) -> T:
        """As `read`, for queries of more than a millisecond: never holds up the event loop."""

    async def acquire_lease(
        self, name: str, holder: str, ttl_s: float, now: datetime, *, succeeds: str = ""
    ) -> Lease | None:
        """Take or renew a lease; None while somebody else's is good. The same holder renews with the same fence.

        `succeeds` names a copy whose earlier life (`runtime.leases.holder_of`) is succeeded at once.
        """

    async def release_lease(self, lease: Lease) -> None:
        """Give a lease back early; harmless when it is not ours any more."""

    async def close(self) -> None:
        """Finish what was accepted, then close."""


# -- sites --------------------------------------------------------------------------------------------------------


class SiteRegistry(Protocol):
    """Which sites there are and how healthy. Only sites named in settings ever appear."""

    async def sites(self) -> Sequence[Site]:
        """The present view; a site whose datacenter does not answer is `unreachable`, not missing."""

    def changes(self) -> AsyncIterator[Sequence[Site]]:
        """The view now and again at each change, for ever."""

    async def ready(self) -> None: ...


# -- one Nomad cluster ---------------------------------------------------------------------------------------------


class JobEngine(Protocol):
    """What the scheduler asks of one Nomad cluster. Every call has a deadline.

    Raises Unavailable (nothing happened), OutcomeUnknown (it may have: ask again with the same arguments, which is
    always safe), Misconfigured (token, TLS, namespace).
    """

    async def submit(self, order: AttemptOrder) -> Submission:
        """Register the attempt if its id was never used (EnforceIndex = 0); read back by nonce when it was.

        The order's secrets are at the cluster before that, where only this attempt's tasks read them.
        """

    async def forget(self, attempt: AttemptId, namespace: str) -> None:
        """Delete the secrets that `submit` put at the cluster for the attempt. Harmless where there are none."""

    async def kept_secrets(self) -> Sequence[tuple[str, str]]:
        """(Nomad job id, namespace) of everything that has secrets at the cluster, in all namespaces."""

    async def close(self, attempt: AttemptId, namespace: str) -> Closing:
        """Make sure that the attempt can never start from now on: tombstone, or stop what is there."""

    async def plan(self, order: AttemptOrder) -> Plan:
        """Ask Nomad whether it would place the attempt now; changes nothing. Raises Refused for an invalid one."""

    async def namespaces(self) -> frozenset[str]: ...

    async def ready(self) -> None:
        """Return when a leader and our token are proven; raise Unavailable or Misconfigured with the culprit."""


class EngineWatch(Protocol):
    """What the monitor asks of one Nomad cluster: the event stream, listings, logs and files. Read only."""

    def stream(self, index: int) -> AsyncIterator[Line | Heartbeat]:
        """Lines from `index` on, inclusive as Nomad does it (0 = whole buffer).

        The first item is a Heartbeat: the proof of life. Ends by raising Unavailable (end of file, silence longer
        than a heartbeat allows, refused) or Misconfigured (token). A last line that was cut off is dropped.
        """

    async def namespaces(self) -> frozenset[str]:
        """The namespaces that our token may see. A stream has the events only of those there were as it was opened."""

    async def listing(self) -> Listing:
        """Jobs (with meta), allocations, evaluations and nodes of all namespaces, consistently read."""

    async def presence(self, job_id: str, namespace: str) -> Presence:
        """Is this Nomad job there? ABSENT only as a proven 404."""

    async def allocations(self, job_id: str, namespace: str) -> Sequence[AllocationSeen]: ...

    async def job_meta(self, job_id: str, namespace: str) -> dict[str, str] | None:
        """The job's meta, None when it is gone."""

    def logs(
        self, allocation: str, task: str, stream: str, *, offset: int = 0, from_end: bool = False, follow: bool = False
    ) -> AsyncIterator[LogChunk]:
        """Bytes of `stdout` or `stderr`. With `from_end`, `offset` counts back from the end.

        Without `follow` it ends at the present end; with it, it goes on with empty chunks as keep-alive until closed.
        Raises NotFound when there are none (yet).
        """

    async def file(self, allocation: str, path: str, limit: int) -> bytes:
        """A file of the allocation's folder. Raises NotFound, or Refused(code `too_large`) beyond `limit` bytes."""

    async def ready(self) -> None: ...
