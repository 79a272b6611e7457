"""What the scheduler answers over HTTP, to other services only: why, where, and events that a reader missed.

A question asked for a user carries their read grant; what its owner may not see answers 404, as if it were not there.
"""

from collections.abc import Callable
from typing import Annotated, Final
from uuid import UUID

from fastapi import FastAPI, Header, Query, Response
from pydantic import BaseModel

from services.scheduler import (
    ceilings,
    explaining,
    foreseeing,
    placement,
    queue_store,
    queueing,
    rounds,
    speaking,
    store,
)
from services.scheduler.authorising import Authorising, Verifier
from services.scheduler.known_sites import KnownSites
from services.scheduler.placement import SiteView
from services.scheduler.queueing import QueueKey
from services.scheduler.records import Job
from services.scheduler.rounds import Answer, Question
from services.scheduler.snapshots import SiteRecord
from shared import ids
from shared.contracts.commands import Principal
from shared.contracts.questions import (
    ExplainRequest,
    Explanation,
    SitesAnswer,
    SiteStatus,
    SpeakAnswer,
    SpeakRequest,
    StraysAnswer,
    StraysRequest,
)
from shared.contracts.reasons import Reason, ReasonCode
from shared.errors import NotFound
from shared.ids import JobId
from shared.job import FINAL_JOB_STATES, JobState
from shared.runtime.http import between_services, install_problems
from shared.runtime.questions import READ_GRANT_HEADER
from shared.runtime.service_identity import Door
from shared.runtime.tokens import ReadGrant, same
from shared.runtime.transactions import Transactions

_VIEW_OWN: Final = "job.view_own"
_VIEW_VO: Final = "job.view_vo"
_MOST_EVENTS: Final = 1000
_NOBODY: Final = Principal(issuer="", subject="")

Grant = Annotated[str, Header(alias=READ_GRANT_HEADER)]


class Answers:
    """The questions and where their answers come from."""

    def __init__(
        self, transactions: Transactions, sites: KnownSites, verifier: Verifier, authorising: Authorising,
        namespace_of: Callable[[str], str],
    ) -> None:  # fmt: skip
        self._transactions = transactions
        self._store = transactions.store
        self._sites = sites
        self._verifier = verifier
        self._authorising = authorising
        self._namespace_of = namespace_of

    # -- who ------------------------------------------------------------------------------------------------------

    async def speak(self, asked: SpeakRequest) -> Response:
        """Whether a job's own identity is of that job's attempt, and that lives."""
        job = await self._store.read(lambda connection: store.load(connection, asked.job_id))
        why = speaking.objection(job, asked.workload)
        if why or job is None:
            return _json(SpeakAnswer(why=why))
        return _json(SpeakAnswer(attempt=job.number, vo=job.spec.vo))

    # -- why ------------------------------------------------------------------------------------------------------

    async def explain(self, asked: ExplainRequest, serai_read_grant: Grant = "") -> Response:
        """Where a job of the asker would go if it were handed in now. Nobody's job (no grant): what sites say alone."""
        spec, namespace = asked.spec, self._namespace_of(asked.spec.vo)
        asker = await self._verifier.verify_read(serai_read_grant) if serai_read_grant else None
        owner = asker.principal if asker else _NOBODY
        job = foreseeing.imagined(spec, owner, ids.new_job_id(), self._transactions.clock())
        snapshot = self._sites.snapshot(await self._store.read(queue_store.read_facts))
        answers: dict[Question, Answer] = {}
        if asker is not None:
            answers = await self._authorising.foreseen(foreseeing.questions(job, snapshot, namespace))
        in_use = rounds.NOTHING
        if any(answer.restricts_use for answer in answers.values()):
            in_use = await self._store.read_long(queue_store.read_in_use)
        return _json(foreseeing.explanation(job, snapshot, answers, in_use, namespace))

    async def explain_job(self, job_id: UUID, serai_read_grant: Grant = "") -> Response:
        """Why a job is where it is: where it is queued, today's verdict of each site and its place in the queue."""
        job = await self._visible(job_id, serai_read_grant)
        explanation = await self._explain_queued(job) if job.state is JobState.QUEUED else await self._explain(job)
        return _json(explanation)

    async def _visible(self, job_id: JobId, grant: str) -> Job:
        asker = await self._verifier.verify_read(grant) if grant else None
        job = await self._store.read(lambda connection: store.load(connection, job_id))
        if job is None or (asker is not None and not _may_see(asker, job)):
            raise NotFound(f"the scheduler knows no job {job_id}", code="not_found")
        return job

    async def _explain_queued(self, job: Job) -> Explanation:
        key = QueueKey(queueing.precedence(job.spec.priority), job.turn, str(job.id))
        position = await self._store.read_long(lambda connection: queue_store.position(connection, key))
        facts = await self._store.read(queue_store.read_facts)
        now = self._transactions.clock()
        verdicts = placement.decide(
            job.spec, self._sites.snapshot(facts), namespace=self._namespace_of(job.spec.vo),
            avoid=job.avoided(now), salt=str(job.id),
        )  # fmt: skip
        backing_off = job.not_before is not None and job.not_before > now
        reason = explaining.queued_reason(await self._told(job), verdicts, backing_off=backing_off)
        return Explanation(
            state=job.state, summary=reason.message, reason=reason, verdicts=verdicts, position=position,
            job_id=job.id,
        )  # fmt: skip

    async def _told(self, job: Job) -> Reason | None:
        """What the job was told last; of a ceiling, with what is in use now, None when it would fit by now."""
        if job.reason is None or job.reason.code is not ReasonCode.CEILING_REACHED:
            return job.reason
        return ceilings.still_reached(job.reason, job, await self._store.read_long(queue_store.read_in_use))

    async def _explain(self, job: Job) -> Explanation:
        """In flight or over: its own reason, or why only what was last known can be told."""
        reason = job.reason
        site = job.attempt.site if job.attempt else None
        if site is not None and job.state not in FINAL_JOB_STATES:
            known = {record.name: record for record in await self._store.read(queue_store.read_sites)}
            reason = explaining.last_known(job, known.get(site)) or reason
        where = f" at {site}" if site else ""
        summary = reason.message if reason else f"The job is {job.state}{where}, attempt {job.number}."
        return Explanation(state=job.state, summary=summary, reason=reason, job_id=job.id)

    # -- events and attempts --------------------------------------------------------------------------------------

    async def events(
        self, job_id: UUID, after: Annotated[int, Query(ge=0)] = 0, attempt: Annotated[int, Query(ge=0)] = 0,
        serai_read_grant: Grant = "",
    ) -> Response:  # fmt: skip
        """The job's own events behind a sequence number, in order, at most 1,000."""
        await self._visible(job_id, serai_read_grant)
        bodies = await self._store.read(
            lambda connection: self._transactions.events_after(connection, job_id, attempt, after, _MOST_EVENTS)
        )
        return Response(b'{"events":[' + b",".join(bodies) + b"]}", media_type="application/json")

    async def strays(self, asked: StraysRequest) -> Response:
        """Which of these attempts, named as at Nomad, are not the current one of a live job. Names of others are not
        answered."""
        named = {name: ids.attempt_of(name) for name in asked.attempts}
        ours = {(found.job_id, found.number): name for name, found in named.items() if found is not None}
        strays = await self._store.read(lambda connection: queue_store.not_current(connection, list(ours)))
        return _json(StraysAnswer(strays=tuple(ours[stray] for stray in strays)))

    # -- where ----------------------------------------------------------------------------------------------------

    async def sites(self) -> Response:
        """Every site as the scheduler sees it now."""
        facts = await self._store.read(queue_store.read_facts)
        views = self._sites.snapshot(facts).sites.values()
        statuses = [_status(view, facts.records.get(view.site.name)) for view in views]
        return _json(SitesAnswer(sites=tuple(sorted(statuses, key=lambda status: status.name))))


def build(answers: Answers, door: Door) -> FastAPI:
    """The app: every route but health is for services of the platform only."""
    app = FastAPI(title="Serai scheduler", redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None)
    install_problems(app)
    for method, path, route, may in (
        ("POST", "/internal/explain", answers.explain, "gateway"),
        ("GET", "/internal/jobs/{job_id}/explain", answers.explain_job, "gateway"),
        ("GET", "/internal/jobs/{job_id}/events", answers.events, "gateway"),
        ("GET", "/internal/sites", answers.sites, "gateway"),
        ("POST", "/internal/attempts:strays", answers.strays, "monitor"),
        ("POST", "/internal/attempts:speak", answers.speak, "gateway"),
    ):
        app.add_api_route(path, route, methods=[method], response_model=None, **between_services(door, may))
    return app


def _may_see(asker: ReadGrant, job: Job) -> bool:
    own = same(asker.principal, job.owner) and asker.may(_VIEW_OWN, job.spec.vo)
    return own or asker.may(_VIEW_VO, job.spec.vo)


def _status(view: SiteView, record: SiteRecord | None) -> SiteStatus:
    site, nodes = view.site, view.nodes or ()
    per_core = max(site.mhz_per_core, 1)
    return SiteStatus(
        name=site.name, country=site.country, vos=site.vos, cluster=site.cluster, health=site.health,
        reachable=view.reachable, suspect=view.suspect, cordoned=view.cordoned is not None,
        cordon_reason=view.cordoned or None, hardware=site.hardware, carbon_g_per_kwh=site.carbon_g_per_kwh,
        cost_per_core_hour=site.cost_per_core_hour, capacity=record.capacity if record else None,
        cores_total=round(sum(node.cpu_mhz for node in nodes) / per_core, 2),
        cores_free=round(sum(max(node.cpu_free, 0) for node in nodes) / per_core, 2),
        memory_mib_total=sum(node.memory_mib for node in nodes),
        memory_mib_free=sum(max(node.memory_free, 0) for node in nodes),
        gpus_total=sum(gpu.count for node in nodes for gpu in node.gpus),
        gpus_free=sum(gpu.count for node in nodes for gpu in node.gpus_free),
        attempts=view.attempts, observed_at=record.observed_at if record else None,
    )  # fmt: skip


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
