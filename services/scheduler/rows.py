"""From records to rows and back. Pure; `store.py` runs the statements."""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import RowMapping

from services.scheduler import ceilings, queueing
from services.scheduler.deadlines import Graces, next_due
from services.scheduler.records import Attempt, Avoid, GivingUp, Job, Need, Outcome, Standing
from shared.contracts.commands import Principal
from shared.contracts.reasons import Reason, VerdictCode
from shared.job import AttemptStatus, FailureClass, JobSpec, JobState
from shared.runtime.clock import micros, moment

Row = RowMapping

SHORT: Final = 4_096
"""Characters of a specification that is kept in memory once read: without files in it, hardly one is longer."""


def maybe_micros(at: datetime | None) -> int | None:
    return None if at is None else micros(at)


def maybe_moment(at: int | None) -> datetime | None:
    return None if at is None else moment(at)


# -- jobs ---------------------------------------------------------------------------------------------------------


def fixed_columns(job: Job) -> dict[str, Any]:
    """Columns that are written once."""
    return {
        "id": str(job.id), "vo": job.spec.vo, "owner_issuer": job.owner.issuer, "owner_subject": job.owner.subject,
        "owner_name": job.owner.name, "spec": job.spec.model_dump_json(exclude_defaults=True),
        "precedence": queueing.precedence(job.spec.priority), "submitted_at": micros(job.submitted_at),
        "client": job.client[:255], "token_id": job.token_id[:255], "millicores": ceilings.millicores(job.spec),
    }  # fmt: skip


def moving_columns(job: Job, graces: Graces) -> dict[str, Any]:
    """Columns that a save writes anew; the revision is the store's."""
    return {
        "shape": queueing.shape_of(job.spec, job.avoid), "state": job.state.value, "sequence": job.sequence,
        "attempt": job.number, "turn": job.turn, "retries_used": job.retries_used,
        "waiting_since": micros(job.waiting_since), "phase_since": micros(job.phase_since),
        "not_before": maybe_micros(job.not_before) or 0, "due_at": maybe_micros(next_due(job, graces)),
        "reason": job.reason.model_dump_json() if job.reason else None,
        "reason_code": job.reason.code.value if job.reason else None, "told_at": maybe_micros(job.told_at) or 0,
        "avoid": _avoid_text(job.avoid), "cancel_requested_at": maybe_micros(job.cancel_requested_at),
        "ended_at": maybe_micros(job.ended_at), "exit_code": job.exit_code,
    }  # fmt: skip


def job_of(row: Row) -> Job:
    """A job from a row of jobs joined with its latest attempt, whose columns begin with `a_`."""
    return Job(
        id=UUID(row["id"]),
        owner=Principal.model_construct(
            issuer=row["owner_issuer"], subject=row["owner_subject"], name=row["owner_name"]
        ),
        spec=spec_of(row["spec"]), state=JobState(row["state"]),
        submitted_at=moment(row["submitted_at"]), waiting_since=moment(row["waiting_since"]),
        phase_since=moment(row["phase_since"]), sequence=row["sequence"], revision=row["revision"],
        turn=row["turn"], retries_used=row["retries_used"],
        not_before=moment(row["not_before"]) if row["not_before"] else None,
        reason=Reason.model_validate_json(row["reason"]) if row["reason"] else None,
        told_at=moment(row["told_at"]) if row["told_at"] else None, avoid=_avoid_of(row["avoid"]),
        attempt=attempt_of(row, "a_") if row["a_number"] is not None else None,
        cancel_requested_at=maybe_moment(row["cancel_requested_at"]), ended_at=maybe_moment(row["ended_at"]),
        exit_code=row["exit_code"], client=row["client"], token_id=row["token_id"],
    )  # fmt: skip


def spec_of(text: str) -> JobSpec:
    """What the job asks for. A job is loaded for each thing that happens to it, often soon after the last one."""
    return _kept_spec(text) if len(text) <= SHORT else JobSpec.model_validate_json(text)


@lru_cache(maxsize=1_024)
def _kept_spec(text: str) -> JobSpec:
    return JobSpec.model_validate_json(text)


def _avoid_text(avoid: Mapping[str, Avoid]) -> str | None:
    if not avoid:
        return None
    parts = {site: [why.code.value, why.message, maybe_micros(why.until)] for site, why in avoid.items()}
    return orjson.dumps(parts).decode()


def _avoid_of(text: str | None) -> dict[str, Avoid]:
    if not text:
        return {}
    return {
        site: Avoid(VerdictCode(code), message, maybe_moment(until))
        for site, (code, message, until) in orjson.loads(text).items()
    }


# -- attempts -----------------------------------------------------------------------------------------------------


def attempt_columns(job_id: UUID, attempt: Attempt) -> dict[str, Any]:
    need = attempt.need
    return {
        "job_id": str(job_id), "number": attempt.number, "site": attempt.site, "cluster": attempt.cluster,
        "namespace": attempt.namespace, "nonce": attempt.nonce, "fence": attempt.fence, "cpu_mhz": need.cpu_mhz,
        "memory_mib": need.memory_mib, "disk_mib": need.disk_mib, "gpus": need.gpus, "gpu_model": need.gpu_model,
        "standing": attempt.standing.value, "registered": attempt.registered, "closed": attempt.closed,
        "giving_up": attempt.giving_up.value if attempt.giving_up else None, "node": attempt.node,
        "seen": attempt.seen, "outcome": _outcome_text(attempt.outcome), "placed_at": micros(attempt.placed_at),
        "starting_at": maybe_micros(attempt.starting_at), "running_at": maybe_micros(attempt.running_at),
        "disconnected_at": maybe_micros(attempt.disconnected_at), "closing_at": maybe_micros(attempt.closing_at),
        "nothing_left_at": maybe_micros(attempt.nothing_left_at), "ended_at": maybe_micros(attempt.ended_at),
    }  # fmt: skip


def attempt_of(row: Row, prefix: str = "") -> Attempt:
    def get(name: str) -> Any:
        return row[prefix + name]

    return Attempt(
        number=get("number"), site=get("site"), cluster=get("cluster"), namespace=get("namespace"),
        nonce=get("nonce"), fence=get("fence"), need=need_of(row, prefix), placed_at=moment(get("placed_at")),
        standing=Standing(get("standing")), registered=bool(get("registered")), closed=bool(get("closed")),
        giving_up=GivingUp(get("giving_up")) if get("giving_up") else None, node=get("node"),
        starting_at=maybe_moment(get("starting_at")), running_at=maybe_moment(get("running_at")),
        disconnected_at=maybe_moment(get("disconnected_at")), closing_at=maybe_moment(get("closing_at")),
        nothing_left_at=maybe_moment(get("nothing_left_at")), seen=get("seen"), ended_at=maybe_moment(get("ended_at")),
        outcome=_outcome_of(get("outcome")),
    )  # fmt: skip


def need_of(row: Row, prefix: str = "") -> Need:
    names = ("cpu_mhz", "memory_mib", "disk_mib", "gpus", "gpu_model")
    return Need(*(row[prefix + name] for name in names))


def _outcome_text(outcome: Outcome | None) -> str | None:
    if outcome is None:
        return None
    reason = outcome.reason.model_dump(mode="json") if outcome.reason else None
    return orjson.dumps([outcome.status, outcome.failure, outcome.exit_code, reason, outcome.vanished]).decode()


def _outcome_of(text: str | None) -> Outcome | None:
    if text is None:
        return None
    status, failure, exit_code, reason, vanished = orjson.loads(text)
    return Outcome(
        AttemptStatus(status), FailureClass(failure) if failure else None, exit_code,
        Reason.model_validate(reason) if reason else None, vanished,
    )  # fmt: skip
