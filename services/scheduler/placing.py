"""The leader's loop over the queue: takes rounds of placing as long as they come to something, then waits.

Woken by new jobs, freed room, changes of sites, and a timer. What fitted nowhere is remembered by shape and not looked
at again until something changed, and then not more often than `recheck_s`. `rounds.plan` decides; this module reads,
asks auth, and writes each batch in one transaction.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection

from services.scheduler import queue_store, rounds
from services.scheduler.authorising import Authorising
from services.scheduler.ceilings import InUse
from services.scheduler.decisions import GaveUp, Input, Placed, Refusal, Waits
from services.scheduler.keeping import Keeper
from services.scheduler.known_sites import KnownSites
from services.scheduler.leading import Leader
from services.scheduler.queue_store import Waiting
from services.scheduler.queueing import QueueKey
from services.scheduler.records import Job
from services.scheduler.rounds import Answer, Choice, Plan, Question
from shared.contracts.reasons import Reason, ReasonCode, because
from shared.ports import Clock, Store
from shared.runtime.transactions import Unit

_PAGE: Final = 64
_PAGES: Final = 32
_MOST_SHAPES: Final = 2000
_PLANNINGS: Final = 6
_TO_TELL: Final = 64
_TOLD_AT_ONCE: Final = 20
_SHAPES_TOLD: Final = 50
_TELLING_SHARE: Final = 0.2
"""Of the time, for telling a long queue why it waits: it would take all where telling is slow."""


@dataclass(frozen=True, slots=True)
class Pace:
    """See the settings of the same names; seconds. `held_s`: a job that waits for something of its own (policy) is
    not looked at again within it, unless suspensions have changed; `auth_pause_s` the same while auth is away, or says
    of a suspension what has not been heard yet.
    """

    tick_s: float = 1.0
    recheck_s: float = 0.1
    tell_after_s: float = 1.0
    retell_after_s: float = 30.0
    batch: int = 64
    auth_pause_s: float = 2.0
    held_s: float = 60.0


@dataclass(slots=True)
class _Memory:
    """What this leader knows of the queue from its last rounds; lost with it, and found again."""

    cleared_at: float = 0.0
    told_at: float = 0.0
    telling_took_s: float = 0.0
    more_to_tell: bool = False
    whole: bool = True
    """The last look at the queue reached its end: who is in it waits for a known reason, or for a time to come."""


class Placer:
    """Places queued jobs while its copy of the service leads."""

    def __init__(
        self, data: Store, leader: Leader, keeper: Keeper, sites: KnownSites, authorising: Authorising, clock: Clock,
        rng: random.Random, namespace_of: Callable[[str], str], pace: Pace,
    ) -> None:  # fmt: skip
        self._store = data
        self._leader = leader
        self._keeper = keeper
        self._stuck = keeper.stuck
        self._sites = sites
        self._authorising = authorising
        self._clock = clock
        self._rng = rng
        self._namespace_of = namespace_of
        self._pace = pace
        self._memory = _Memory()

    async def run(self) -> None:
        """Place for ever."""
        self._memory = _Memory()
        try:
            while True:
                if self._forget_stuck() or self._keeper.wakes.queue_changed or not self._memory.whole:
                    self._keeper.wakes.queue_changed = False
                    while await self.round() and not self._memory.whole:
                        self._forget_stuck()
                await self._tell_waiting()
                await self._keeper.wakes.queue.wait(self._patience_s())
        finally:
            self._stuck.forget()

    async def round(self) -> int:
        """Look through the queue once, up to one batch; how many jobs moved."""
        after: QueueKey | None = None
        for _ in range(_PAGES):
            page = await self._page(after)
            moved = await self._place(page) if page else 0
            left = sum(self._why(waiting) is None for waiting in page) - moved
            self._memory.whole = len(page) < _PAGE and (not moved or left <= 0)
            if self._memory.whole:
                self._stuck.looked()
            if moved or len(page) < _PAGE:
                return moved
            after = page[-1].key
        return 0

    def _why(self, waiting: Waiting) -> Reason | None:
        """Why a job is left out, None when it is not."""
        return self._stuck.why(waiting.job.owner, waiting.shape)

    async def _page(self, after: QueueKey | None) -> list[Waiting]:
        without, now = list(self._stuck.shapes)[:_MOST_SHAPES], self._clock()
        held = list(self._stuck.owners)[:_MOST_SHAPES]
        return await self._store.read(
            lambda connection: queue_store.page(connection, now, after=after, without=without, most=_PAGE, held=held)
        )

    async def _place(self, page: list[Waiting]) -> int:
        made = await self._plan([(waiting.job, waiting.shape) for waiting in page])
        self._stuck.add(made)
        told = self._inputs(made)
        if not told:
            return 0
        return await self._leader.run(lambda unit: self._tell_all(unit, told), cause=f"placing/{self._leader.fence}")

    async def _plan(self, free: list[tuple[Job, str]]) -> Plan:
        """Plan, ask auth what the plan needs to know, plan again. What stays unknown waits for the next round."""
        await self._authorising.refreshed()
        facts = await self._store.read(queue_store.read_facts)
        snapshot, now, answers = self._sites.snapshot(facts), self._clock(), self._authorising.answers()
        suspended = self._authorising.suspended
        for _ in range(_PLANNINGS):
            in_use = await self._in_use(answers)
            made = rounds.plan(
                free, snapshot, answers, now, namespace_of=self._namespace_of, most=self._pace.batch, in_use=in_use,
                suspended=suspended,
            )  # fmt: skip
            if not made.questions:
                return made
            answers |= await self._authorising.ask(made.questions)
        return Plan(snapshot)

    async def _in_use(self, answers: Mapping[Question, Answer]) -> InUse:
        """Read only where some ceiling has to be held against it."""
        if not any(answer.restricts_use for answer in answers.values()):
            return rounds.NOTHING
        return await self._store.read(queue_store.read_in_use)

    def _inputs(self, made: Plan) -> list[tuple[Job, Input]]:
        told: list[tuple[Job, Input]] = [(choice.job, self._placed(choice)) for choice in made.choices]
        told += [(job, GaveUp(reason, verdicts)) for job, reason, verdicts in made.hopeless]
        told += [
            (job, Refusal(because(ReasonCode.NOT_AUTHORISED, f"The owner may not run this job any more: {why}")))
            for job, why in made.forbidden
        ]
        now = self._clock()
        for job, reason, briefly in made.waits:
            pause_s = self._pace.auth_pause_s if briefly else self._pace.held_s
            told.append((job, Waits(reason, until=now + timedelta(seconds=pause_s))))
        return told

    def _placed(self, choice: Choice) -> Placed:
        site = self._sites.by_name[choice.site]
        return Placed(
            site=site.name, cluster=site.cluster, namespace=self._namespace_of(choice.job.spec.vo),
            nonce=f"{self._rng.getrandbits(128):032x}", fence=self._leader.fence, need=choice.need,
            receipt=choice.receipt,
        )  # fmt: skip

    def _tell_all(self, unit: Unit, told: list[tuple[Job, Input]]) -> int:
        """How many moved. A job that was changed meanwhile (cancelled, say) is left for the next round."""
        inputs = {job.id: what for job, what in told}
        same = self._keeper.unchanged(unit, [job for job, _ in told])
        for job in same:
            self._keeper.tell(unit, job, inputs[job.id])
        return sum(not isinstance(inputs[job.id], Waits) for job in same)

    # -- telling why jobs wait ------------------------------------------------------------------------------------

    async def _tell_waiting(self) -> None:
        """Tell jobs that are stuck why, once they have waited a little, and again when the reason is another."""
        memory = self._memory
        if not self._stuck or self._now_s() - memory.told_at < self._telling_s():
            return
        began = memory.told_at = self._now_s()
        waiting = await self._store.read(self._to_tell)
        reasons = [(one.job, self._why(one)) for one in waiting]
        known: list[tuple[Job, Input]] = [(job, Waits(reason)) for job, reason in reasons if reason is not None]
        told, memory.more_to_tell = known[:_TOLD_AT_ONCE], len(known) > _TOLD_AT_ONCE
        if told:
            await self._leader.run(lambda unit: self._tell_all(unit, told), cause="placing/waiting")
        memory.told_at = self._now_s()
        memory.telling_took_s = memory.told_at - began

    def _telling_s(self) -> float:
        """Between two tellings: many are told a few at a time and in a part of the time, since others work too."""
        if not self._memory.more_to_tell:
            return self._pace.tick_s
        return max(self._pace.recheck_s, self._memory.telling_took_s * (1 / _TELLING_SHARE - 1))

    def _to_tell(self, connection: Connection) -> list[Waiting]:
        """Those who were not told anything yet; when all were, those for whom it is different now."""
        now = self._clock()
        first = now - timedelta(seconds=self._pace.tell_after_s)
        again = now - timedelta(seconds=self._pace.retell_after_s)
        waiting = queue_store.untold(connection, now, first, _TO_TELL)
        if len(waiting) == _TO_TELL:
            return waiting
        reasons: list[tuple[tuple[str, tuple[str, str] | None], Reason]]
        reasons = [((shape, None), why) for shape, why in self._stuck.shapes.items()]
        reasons += [((shape, (issuer, subject)), why) for (issuer, subject, shape), why in self._stuck.owners.items()]
        for (shape, owner), why in self._rng.sample(reasons, min(_SHAPES_TOLD, len(reasons))):
            waiting += queue_store.told_otherwise(connection, shape, why.code, again, _TO_TELL, owner)
        return waiting

    # -- pace -----------------------------------------------------------------------------------------------------

    def _forget_stuck(self) -> bool:
        """When room changed for those who wait for it, and on every tick, everything is looked at again; but not
        before a whole look is done. Whether it is time.
        """
        wakes, memory, now_s = self._keeper.wakes, self._memory, self._now_s()
        since = now_s - memory.cleared_at
        due = since >= self._pace.tick_s or (wakes.room_changed and self._stuck and since >= self._pace.recheck_s)
        if not due or not memory.whole:
            return False
        wakes.room_changed = False
        memory.cleared_at = now_s
        self._stuck.look_again()
        return True

    def _patience_s(self) -> float:
        """How long to wait for a wake: less when changed room waits for its turn to be looked at."""
        if self._keeper.wakes.room_changed and self._stuck:
            since = self._now_s() - self._memory.cleared_at
            return max(0.001, self._pace.recheck_s - since)
        if self._memory.more_to_tell:
            return max(0.001, self._memory.told_at + self._telling_s() - self._now_s())
        return self._pace.tick_s if self._memory.whole else 0.001

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
