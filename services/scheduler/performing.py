"""The leader's loop over owed calls: registers and closes attempts at the sites, and deletes
their secrets there, until that is done.

The one retrying layer for calls to Nomad. Asking again after a doubt is always safe (EnforceIndex and nonce). Answers
are written several at a time. Which answer means what for the job is decided in `jobs.py`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from services.scheduler import store
from services.scheduler.decisions import (
    Call,
    IdClosed,
    Input,
    Registered,
    RegisterRefused,
    RegisterTaken,
    RegisterVoid,
    Withheld,
)
from services.scheduler.keeping import Keeper
from services.scheduler.known_sites import KnownSites
from services.scheduler.leading import Leader
from services.scheduler.records import Attempt, Job
from services.scheduler.releasing import Releasing
from services.scheduler.store import OwedCall
from shared import ids
from shared.engine import AttemptOrder, Closing, Submission, Submitted
from shared.errors import Misconfigured, SeraiError, Unavailable
from shared.ids import AttemptId
from shared.ports import Clock, JobEngine, Store
from shared.runtime import logs
from shared.runtime.telemetry import Attributes, Tracer
from shared.runtime.transactions import Unit

log = logs.get("scheduler.performing")

_DEADLINE_S: Final = 30.0
"""Above the adapter's own: it must not hang, whatever happens."""
_MOST_FAILURES_SHIFT: Final = 16


@dataclass(frozen=True, slots=True)
class CallPace:
    """See the settings `calls_per_cluster`, `call_first_s`, `call_most_s`, `stop_poll_s`, `register_limit_s`."""

    per_cluster: int = 4
    first_s: float = 0.5
    most_s: float = 60.0
    poll_s: float = 2.0
    register_s: float = 3600.0
    tick_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Done:
    """A call that was made: what to tell the job, or (`again_s`) when to make it again and what went wrong."""

    owed: OwedCall
    told: Input | None = None
    again_s: float | None = None
    error: str = ""


CallKey = tuple[ids.JobId, int, Call]


class Performer:
    """Makes owed calls while its copy of the service leads."""

    def __init__(
        self, data: Store, leader: Leader, keeper: Keeper, sites: KnownSites, engines: Mapping[str, JobEngine],
        releasing: Releasing, clock: Clock, tracer: Tracer, rng: random.Random, pace: CallPace,
    ) -> None:  # fmt: skip
        self._releasing = releasing
        self._store = data
        self._leader = leader
        self._keeper = keeper
        self._sites = sites
        self._engines = engines
        self._clock = clock
        self._tracer = tracer
        self._rng = rng
        self._pace = pace
        self._under_way: dict[str, set[CallKey]] = {}
        """By cluster, from the call to the writing down of its answer."""
        self._calling: Counter[str] = Counter()
        self._done: list[Done] = []
        self._finished = asyncio.Event()
        self._full: set[str] = set()
        """Clusters that may have more due than can be called at a time: looked at again when a call has ended."""

    async def run(self) -> None:
        """Make owed calls for ever."""
        self._under_way = {cluster: set() for cluster in self._engines}
        self._calling, self._done, self._finished, self._full = Counter(), [], asyncio.Event(), set()
        async with asyncio.TaskGroup() as calls:
            calls.create_task(self._record(), name="scheduler.calls.record")
            clusters = set(self._engines)
            while True:
                for owed in await self._due(clusters & self._under_way.keys()):
                    self._under_way[owed.cluster].add(owed.key)
                    self._calling[owed.cluster] += 1
                    calls.create_task(self._perform(owed), name=f"{owed.call}:{owed.job_id}-{owed.number}")
                woken = await self._keeper.wakes.calls.wait(self._pace.tick_s)
                clusters = self._keeper.wakes.take_owed() if woken else set(self._engines)

    async def _due(self, clusters: set[str]) -> list[OwedCall]:
        """What may be called now at these clusters."""
        now, most = self._clock(), self._pace.per_cluster
        asked = {cluster: most + len(self._under_way[cluster]) for cluster in clusters if self._calling[cluster] < most}
        self._full |= clusters - asked.keys()
        if not asked:
            return []
        before = {name: frozenset(self._under_way[name]) for name in asked}
        due = await self._store.read(
            lambda connection: {name: store.due_calls(connection, name, now, limit) for name, limit in asked.items()}
        )
        self._full |= {name for name, calls in due.items() if len(calls) == asked[name]}
        return [owed for name, calls in due.items() for owed in self._fresh(name, calls, before[name])]

    def _fresh(self, cluster: str, due: list[OwedCall], before: frozenset[CallKey]) -> list[OwedCall]:
        """Those that are not under way, as many as may be called now. What was under way when the store was asked may
        have been written down since: what it said of that is old.
        """
        busy = self._under_way[cluster] | before
        return [owed for owed in due if owed.key not in busy][: self._pace.per_cluster - self._calling[cluster]]

    # -- calling --------------------------------------------------------------------------------------------------

    async def _perform(self, owed: OwedCall) -> None:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                done = await self._call(owed)
        except TimeoutError:
            done = self._again(owed, f"no answer within {_DEADLINE_S:g} s")
        except Misconfigured as error:
            log.error("site_misconfigured", cluster=owed.cluster, culprit=error.what)
            done = Done(owed, again_s=self._pace.most_s, error=error.what)
        except Unavailable as away:
            done = self._again(owed, away.what)
        except SeraiError as error:
            log.error("call_refused", cluster=owed.cluster, call=owed.call, job_id=str(owed.job_id), what=error.what)
            done = self._again(owed, error.what)
        self._done.append(done)
        self._finished.set()
        self._calling[owed.cluster] -= 1
        if owed.cluster in self._full:
            self._full.discard(owed.cluster)
            self._keeper.wakes.owed(owed.cluster)

    async def _call(self, owed: OwedCall) -> Done:
        engine = self._engines[owed.cluster]
        if owed.call is Call.CLOSE:
            with self._span(owed):
                closing = await engine.close(AttemptId(owed.job_id, owed.number), owed.namespace)
            return self._closed(owed, closing)
        if owed.call is Call.FORGET:
            with self._span(owed):
                await engine.forget(AttemptId(owed.job_id, owed.number), owed.namespace)
            return Done(owed)
        job = await self._store.read(lambda connection: store.load(connection, owed.job_id))
        order = self._order(owed, job)
        if job is None or job.attempt is None or order is None:
            return Done(owed)
        released = await self._releasing.of(job, job.attempt)
        if released.refusal is not None:
            return Done(owed, Withheld(owed.number, released.refusal))
        order = replace(order, secrets=released.values)
        with self._span(owed):
            submission = await engine.submit(order)
        return self._submitted(owed, submission)

    def _span(self, owed: OwedCall) -> AbstractContextManager[object]:
        attributes: Attributes = {
            "serai.attempt": owed.number, "serai.cluster": owed.cluster, "serai.tries": owed.tries,
        }  # fmt: skip
        return self._tracer.span(f"nomad.{owed.call}", kind="client", job_id=owed.job_id, attributes=attributes)

    def _order(self, owed: OwedCall, job: Job | None) -> AttemptOrder | None:
        """The register, unless it must not be sent (again)."""
        attempt = job.attempt if job is not None else None
        if job is None or attempt is None or not _may_register(attempt, owed, self._clock(), self._pace.register_s):
            return None
        site = self._sites.by_name.get(attempt.site)
        if site is None:
            raise Unavailable(f"the site {attempt.site} is not known at the moment", code="no_site")
        return AttemptOrder(
            attempt=AttemptId(job.id, attempt.number), spec=job.spec, site=site, nonce=attempt.nonce,
            traceparent=ids.traceparent(job.id), namespace=attempt.namespace,
        )  # fmt: skip

    # -- what an answer means -------------------------------------------------------------------------------------

    def _submitted(self, owed: OwedCall, submission: Submission) -> Done:
        match submission.outcome:
            case Submitted.ACCEPTED | Submitted.ALREADY_THERE:
                return Done(owed, Registered(owed.number))
            case Submitted.INVALID:
                return Done(owed, RegisterRefused(owed.number, submission.text))
            case Submitted.FOREIGN:
                log.critical("foreign_attempt", job_id=str(owed.job_id), attempt=owed.number, cluster=owed.cluster,
                             what=submission.text)  # fmt: skip
                return Done(owed, RegisterTaken(owed.number))
        return Done(owed, RegisterVoid(owed.number))

    def _closed(self, owed: OwedCall, closing: Closing) -> Done:
        """Asked until nothing is left; meanwhile the monitor usually tells the end."""
        told = IdClosed(owed.number, closing)
        if closing is Closing.NEVER_RAN:
            return Done(owed, told)
        patience = self._pace.poll_s * 2 ** min(owed.tries, _MOST_FAILURES_SHIFT)
        return Done(owed, told, again_s=min(patience, self._pace.most_s), error=closing.value)

    def _again(self, owed: OwedCall, error: str) -> Done:
        log.warning("call_failed", call=owed.call, cluster=owed.cluster, job_id=str(owed.job_id), tries=owed.tries + 1,
                    culprit=error)  # fmt: skip
        ceiling = min(self._pace.first_s * 2.0 ** min(owed.tries, _MOST_FAILURES_SHIFT), self._pace.most_s)
        return Done(owed, again_s=ceiling * (0.5 + self._rng.random() / 2), error=error)

    # -- writing --------------------------------------------------------------------------------------------------

    async def _record(self) -> None:
        """Write what came back, all of it at a time."""
        while True:
            await self._finished.wait()
            self._finished.clear()
            batch, self._done = self._done, []
            await self._leader.run(lambda unit, batch=batch: self._write(unit, batch), cause="performing")  # type: ignore[misc]
            for done in batch:
                self._under_way[done.owed.cluster].discard(done.owed.key)

    def _write(self, unit: Unit, batch: list[Done]) -> None:
        for done in batch:
            self._write_one(unit, done)

    def _write_one(self, unit: Unit, done: Done) -> None:
        owed = done.owed
        if done.again_s is None:
            store.drop_owed(unit.connection, owed.job_id, owed.number, owed.call)
        else:
            store.owe_later(unit.connection, owed, unit.now + timedelta(seconds=done.again_s), done.error)
        if done.told is None:
            return
        job = store.load(unit.connection, owed.job_id)
        if job is not None:
            self._keeper.tell(unit, job, done.told)
        elif isinstance(done.told, IdClosed) and done.told.closing is not Closing.STOPPING:
            store.drop_owed(unit.connection, owed.job_id, owed.number, owed.call)


def _may_register(attempt: Attempt, owed: OwedCall, now: datetime, limit_s: float) -> bool:
    """Never again once the site has shown the job, the attempt is being given up, or too much time has passed."""
    return (
        attempt.number == owed.number
        and attempt.giving_up is None
        and attempt.current
        and not attempt.registered
        and now - attempt.placed_at < timedelta(seconds=limit_s)
    )
