"""Which running jobs a suspension stops, and what is said of it. Pure; `stopping.py` looks and carries it out.

A running job is stopped where the suspension itself says so (`stop_running`), or where the policy of the platform, of
its VO or of its site does (`on_suspension: stop`); elsewhere it runs to its end. Queued jobs are held by `rounds.py`
in either case, and so is what was stopped, until the suspension ends.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from services.scheduler.records import Job, Standing
from shared.contracts.reasons import Reason, ReasonCode, because
from shared.contracts.suspensions import Stops, Suspended, TrustState


@dataclass(frozen=True, slots=True)
class Suspensions:
    """What suspensions name that may stop something: where to look for running jobs of theirs."""

    vos: frozenset[str] = frozenset()
    subjects: frozenset[tuple[str, str]] = frozenset()
    clients: frozenset[str] = frozenset()
    tokens: frozenset[str] = frozenset()

    @property
    def nothing(self) -> bool:
        return not (self.vos or self.subjects or self.clients or self.tokens)


def named(state: TrustState, now: datetime) -> Suspensions:
    """What to look for; nothing when neither a suspension nor a policy stops anything."""
    stopping = [
        each for each in state.suspensions
        if (each.until is None or now < each.until) and (each.stop_running or not state.stops.nowhere)
    ]  # fmt: skip
    return Suspensions(
        vos=frozenset(each.vo for each in stopping if each.kind == "vo"),
        subjects=frozenset((each.issuer, each.value) for each in stopping if each.kind in ("subject", "membership")),
        clients=frozenset(each.value for each in stopping if each.kind == "client"),
        tokens=frozenset(each.value for each in stopping if each.kind == "token"),
    )


def to_stop(
    running: Iterable[Job], suspended: Suspended, stops: Stops, now: datetime
) -> list[tuple[Job, Reason]]:  # fmt: skip
    """The jobs among these that must not go on, each with why."""
    found = []
    for job in running:
        suspension = suspended.of_job(job.owner, job.spec.vo, job.client, job.token_id, now)
        attempt = job.attempt
        if suspension is None or attempt is None or attempt.standing is not Standing.OPEN:
            continue
        if suspension.stop_running or stops.at(job.spec.vo, attempt.site):
            found.append((job, because(ReasonCode.SUSPENDED, suspension.words_of_job())))
    return found
