"""The table from message to handler: what the scheduler does about each command and each report.

Handlers run inside one transaction, on the store's thread: load, let pure code decide, save (`keeping.py`). They never
wait and never talk to a site.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from services.scheduler import queue_store, queueing, speaking, store
from services.scheduler.decisions import AttemptSeen, Call, CancelAsked, Registered, Reported, StopStray
from services.scheduler.keeping import Keeper
from services.scheduler.records import Job, Outcome
from shared.contracts import events
from shared.contracts.commands import CancelJob, Command, CordonSite, ReportProgress, SubmitJob, UncordonSite
from shared.contracts.envelope import Envelope
from shared.contracts.events import (
    AttemptEnded,
    AttemptEvent,
    AttemptFailed,
    AttemptLost,
    Event,
    SiteObserved,
    SiteReachable,
    SiteStray,
    SiteSuspect,
    SiteUnreachable,
)
from shared.contracts.reasons import ReasonCode, because
from shared.errors import Refused
from shared.ids import AttemptId
from shared.runtime import logs
from shared.runtime.clock import micros
from shared.runtime.consuming import Handler
from shared.runtime.tokens import GrantClaims
from shared.runtime.transactions import Unit
from shared.site import Site

log = logs.get("scheduler.handlers")


@dataclass(frozen=True, slots=True)
class Context:
    """What handlers need beside the transaction. `denial`: auth's no to a command whose grant had expired.

    `claims` reads a grant that the consumer has verified.
    """

    keeper: Keeper
    denial: Callable[[str], str | None]
    claims: Callable[[str], GrantClaims]
    sites: Callable[[], Mapping[str, Site]]
    stop_unknown: bool = True


# -- commands -----------------------------------------------------------------------------------------------------


def submit_job(context: Context, unit: Unit, envelope: Envelope, command: SubmitJob) -> None:
    """A job enters the queue, once; a cancel that came before it is applied."""
    precedence = queueing.precedence(command.spec.priority)
    met = queue_store.arrival(unit.connection, command.job_id, precedence, command.owner)
    if met.known:
        log.info("submitted_before", job_id=str(command.job_id), id=envelope.id)
        return
    denied = context.denial(envelope.id)
    if denied is not None:
        message = f"The authorisation had expired and a fresh decision said no: {denied}"
        context.keeper.reject(unit, command, because(ReasonCode.AUTHORISATION_EXPIRED, message))
        return
    claims = context.claims(envelope.grant)
    job = context.keeper.accept(unit, command, met.turn, client=claims.client, token_id=claims.token_id)
    cancelled_at = store.take_cancel(unit.connection, job) if met.cancelled else None
    if cancelled_at is not None:
        context.keeper.tell(unit, job, CancelAsked(cancelled_at))


def cancel_job(context: Context, unit: Unit, envelope: Envelope, command: CancelJob) -> None:
    """Stop a job, or keep the wish until the job is known."""
    denied = context.denial(envelope.id)
    if denied is not None:
        log.warning("cancel_denied", job_id=str(command.job_id), id=envelope.id, why=denied)
        return
    claims = context.claims(envelope.grant)
    job = store.load(unit.connection, command.job_id)
    if job is None:
        store.keep_cancel(unit.connection, command, claims.principal if claims.own else None, unit.now)
        return
    if job.spec.vo != command.vo or not claims.covers(job.owner):
        raise Refused(f"the grant {claims.id} does not reach job {job.id}", code="grant_invalid")
    context.keeper.tell(unit, job, CancelAsked(command.requested_at))


def report_progress(context: Context, unit: Unit, envelope: Envelope, command: ReportProgress) -> None:
    """What a task tells of itself becomes an event of its job. One that comes too late is not told any more."""
    denied = context.denial(envelope.id)
    claims, job = context.claims(envelope.grant), store.load(unit.connection, command.job_id)
    why = denied or (_unheard(claims, job, command) if claims.workload else "nobody's identity stands behind it")
    if why or job is None:
        log.info("report_not_told", job_id=str(command.job_id), attempt=command.attempt, id=envelope.id, why=why)
        return
    context.keeper.tell(unit, job, Reported(command))


def _unheard(claims: GrantClaims, job: Job | None, command: ReportProgress) -> str:
    assert claims.workload is not None
    if not claims.workload.is_of(AttemptId(command.job_id, command.attempt)):
        return "it is about another attempt than its grant"
    if job is not None and job.spec.vo != command.vo:
        return "it is about another VO"
    return speaking.objection(job, claims.workload)


def cordon_site(context: Context, unit: Unit, envelope: Envelope, command: CordonSite) -> None:
    if _allowed(context, envelope, command):
        store.cordon(unit.connection, command.site, command.reason, command.requested_by, command.requested_at)
        unit.after_commit(context.keeper.wakes.room)


def uncordon_site(context: Context, unit: Unit, envelope: Envelope, command: UncordonSite) -> None:
    if _allowed(context, envelope, command):
        store.uncordon(unit.connection, command.site)
        unit.after_commit(context.keeper.wakes.room)


def _allowed(context: Context, envelope: Envelope, command: CordonSite | UncordonSite) -> bool:
    denied = context.denial(envelope.id)
    if denied is not None:
        log.warning("cordon_denied", site=command.site, id=envelope.id, why=denied)
    return denied is None


# -- attempts -----------------------------------------------------------------------------------------------------


def attempt_event(context: Context, unit: Unit, envelope: Envelope, event: AttemptEvent) -> None:
    """The monitor tells of an attempt."""
    job = store.load(unit.connection, event.job_id)
    if job is None:
        log.warning("attempt_of_unknown_job", job_id=str(event.job_id), attempt=event.attempt, site=event.site)
        return
    told = AttemptSeen(event.attempt, event.sequence, event.status, event.node, outcome_of(event))
    context.keeper.tell(unit, job, told)


def outcome_of(event: AttemptEvent) -> Outcome | None:
    """The outcome that an event tells, None while the attempt lives."""
    if not isinstance(event, AttemptEnded):
        return None
    return Outcome(
        status=event.status,
        failure=event.failure if isinstance(event, AttemptFailed) else None,
        exit_code=event.exit_code,
        reason=event.reason,
        vanished=isinstance(event, AttemptLost) and event.vanished,
    )


# -- sites --------------------------------------------------------------------------------------------------------


def site_observed(context: Context, unit: Unit, envelope: Envelope, event: SiteObserved) -> None:
    values = {"capacity": event.capacity.model_dump_json()}
    if store.save_site(unit.connection, event.site, "observed_at", envelope.time, values):
        unit.after_commit(context.keeper.wakes.room)


def site_reachable(context: Context, unit: Unit, envelope: Envelope, event: SiteReachable) -> None:
    """It is back: what is owed to it is done now."""
    _health(context, unit, envelope, event.site, {"unreachable_since": None, "suspect": False})
    site = context.sites().get(event.site)
    if site is not None:
        store.due_again(unit.connection, site.cluster, unit.now)
        unit.after_commit(partial(context.keeper.wakes.owed, site.cluster))


def site_unreachable(context: Context, unit: Unit, envelope: Envelope, event: SiteUnreachable) -> None:
    _health(context, unit, envelope, event.site, {"unreachable_since": micros(event.since)})
    unit.after_commit(context.keeper.wakes.sweep.set)


def site_suspect(context: Context, unit: Unit, envelope: Envelope, event: SiteSuspect) -> None:
    _health(context, unit, envelope, event.site, {"unreachable_since": None, "suspect": True})


def _health(context: Context, unit: Unit, envelope: Envelope, site: str, values: dict[str, Any]) -> None:
    if store.save_site(unit.connection, site, "health_at", envelope.time, values):
        unit.after_commit(context.keeper.wakes.room)


def site_stray(context: Context, unit: Unit, envelope: Envelope, event: SiteStray) -> None:
    """An attempt of ours was met at a site: current, or to be stopped at every sight."""
    job = store.load(unit.connection, event.job_id)
    if job is None or store.attempt(unit.connection, event.job_id, event.attempt) is None:
        _stop_unknown(context, unit, event)
    elif job.attempt is not None and job.attempt.current and job.number == event.attempt:
        context.keeper.tell(unit, job, Registered(event.attempt))
    else:
        context.keeper.stop_stray(unit, job.id, StopStray(event.attempt, sequence=2**31))


def _stop_unknown(context: Context, unit: Unit, event: SiteStray) -> None:
    """One that we have no record of (a job long forgotten, a database restored)."""
    site = context.sites().get(event.site)
    log.error("unknown_stray", job_id=str(event.job_id), attempt=event.attempt, site=event.site,
              stopped=context.stop_unknown and site is not None)  # fmt: skip
    if context.stop_unknown and site is not None:
        store.owe(
            unit.connection, event.job_id, event.attempt, Call.CLOSE, cluster=site.cluster,
            namespace=event.namespace, now=unit.now,
        )  # fmt: skip
        unit.after_commit(partial(context.keeper.wakes.owed, site.cluster))


# -- the table ----------------------------------------------------------------------------------------------------

ContextHandler = Callable[[Context, Unit, Envelope, Any], None]

HANDLERS: Final[Mapping[type[Command] | type[Event], ContextHandler]] = {
    SubmitJob: submit_job,
    CancelJob: cancel_job,
    ReportProgress: report_progress,
    CordonSite: cordon_site,
    UncordonSite: uncordon_site,
    **dict.fromkeys(events.ATTEMPT_EVENTS, attempt_event),
    SiteObserved: site_observed,
    SiteReachable: site_reachable,
    SiteUnreachable: site_unreachable,
    SiteSuspect: site_suspect,
    SiteStray: site_stray,
}


def bound(context: Context) -> dict[type, Handler]:
    """The table as the consumer takes it."""
    return {kind: partial(handler, context) for kind, handler in HANDLERS.items()}
