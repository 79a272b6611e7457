"""A JobEngine in memory: keeps Nomad's promises about ids (first register wins, tombstones) and records calls."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shared.engine import AttemptOrder, Closing, Plan, Submission, Submitted
from shared.errors import SeraiError, Unavailable
from shared.ids import AttemptId

TOMBSTONE = ""
DEADLINE_S = 30.0


@dataclass
class EngineDouble:
    """`answers` are used up first, one per submit; `away` refuses every call; `lose_answers` acts, then forgets to say.

    `living` are attempts that run; `end` lets one end by itself.
    """

    namespaces_there: frozenset[str] = frozenset({"vo-climate-example", "vo-bio-example"})
    answers: list[Submission | SeraiError] = field(default_factory=list)
    away: bool = False
    orders: list[AttemptOrder] = field(default_factory=list)
    closed: list[AttemptId] = field(default_factory=list)
    nonces: dict[AttemptId, str] = field(default_factory=dict)
    living: set[AttemptId] = field(default_factory=set)
    most_at_once: int = 0
    hold: asyncio.Event | None = None
    secrets: dict[AttemptId, Mapping[str, bytes]] = field(default_factory=dict)
    """What submits have put at the cluster and nobody has deleted since."""

    def __post_init__(self) -> None:
        self._changed = asyncio.Condition()
        self._at_once = 0

    async def submit(self, order: AttemptOrder) -> Submission:
        await self._called()
        self.orders.append(order)
        if order.secrets:
            self.secrets[order.attempt] = order.secrets
        answer = self.answers.pop(0) if self.answers else self._register(order)
        await self._tell()
        if isinstance(answer, SeraiError):
            raise answer
        return answer

    async def close(self, attempt: AttemptId, namespace: str) -> Closing:
        await self._called()
        self.closed.append(attempt)
        closing = self._close(attempt)
        await self._tell()
        return closing

    async def forget(self, attempt: AttemptId, namespace: str) -> None:
        await self._called()
        self.secrets.pop(attempt, None)
        await self._tell()

    async def kept_secrets(self) -> list[tuple[str, str]]:
        self._present()
        return [(attempt.nomad_id, "default") for attempt in self.secrets]

    async def plan(self, order: AttemptOrder) -> Plan:
        return Plan()

    async def namespaces(self) -> frozenset[str]:
        self._present()
        return self.namespaces_there

    async def ready(self) -> None:
        self._present()

    def end(self, attempt: AttemptId) -> None:
        self.living.discard(attempt)

    async def until(self, condition: Callable[["EngineDouble"], bool]) -> None:
        """Return when `condition` holds after some call."""
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: condition(self))

    def _register(self, order: AttemptOrder) -> Submission:
        nonce = self.nonces.setdefault(order.attempt, order.nonce)
        if nonce == TOMBSTONE:
            return Submission(Submitted.CLOSED)
        if nonce != order.nonce:
            return Submission(Submitted.FOREIGN, "another nonce")
        first = sum(1 for other in self.orders if other.attempt == order.attempt) == 1
        if first:
            self.living.add(order.attempt)
        return Submission(Submitted.ACCEPTED if first else Submitted.ALREADY_THERE)

    def _close(self, attempt: AttemptId) -> Closing:
        if attempt not in self.nonces:
            self.nonces[attempt] = TOMBSTONE
        if self.nonces[attempt] == TOMBSTONE:
            return Closing.NEVER_RAN
        return Closing.STOPPING if attempt in self.living else Closing.ENDED

    async def _called(self) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.hold is not None:
                await self.hold.wait()
        finally:
            self._at_once -= 1
        self._present()

    def _present(self) -> None:
        if self.away:
            raise Unavailable("the cluster is away")

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
