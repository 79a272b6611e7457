"""Why a job waits, in one closed code and one sentence, from the verdicts of placement. Pure."""

from collections.abc import Sequence
from typing import Final

from services.scheduler.records import Job
from services.scheduler.snapshots import SiteRecord
from shared.contracts.reasons import Reason, ReasonCode, Verdict, VerdictCode, because
from shared.job import OnLost

BUSY: Final = frozenset(
    {VerdictCode.CPU_BUSY, VerdictCode.MEMORY_BUSY, VerdictCode.DISK_BUSY, VerdictCode.GPUS_BUSY,
     VerdictCode.NO_ROOM_ON_ONE_NODE, VerdictCode.TRIED_BEFORE}
)  # fmt: skip
"""Only with `can_change`: the site would do if it were empty."""

HELD: Final = frozenset(
    {ReasonCode.WAITING_FOR_AUTHORISATION, ReasonCode.CEILING_REACHED, ReasonCode.SUSPENDED}
)  # fmt: skip
"""What no site can change; a job that was told this waits for it until it is told otherwise."""


def waiting_reason(verdicts: Sequence[Verdict]) -> Reason:
    """Why nothing fits now: no room, a ceiling, sites that are away, or nothing that could ever run it."""
    busy = [verdict for verdict in verdicts if verdict.can_change and verdict.code in BUSY]
    full = [verdict for verdict in verdicts if verdict.code is VerdictCode.CEILING_REACHED]
    away = [verdict for verdict in verdicts if verdict.can_change and verdict.code not in BUSY]
    if busy:
        return because(ReasonCode.WAITING_FOR_ROOM, sites_full=len(busy), sites=len(verdicts))
    if full:
        return because(ReasonCode.CEILING_REACHED, full[0].message, sites_at_ceiling=len(full), sites=len(verdicts))
    if away:
        causes = " ".join(verdict.message for verdict in away[:3])
        message = f"The sites that could run the job are not available at the moment. {causes}"
        return because(ReasonCode.WAITING_FOR_SITE, message, sites_away=len(away), sites=len(verdicts))
    return because(ReasonCode.NO_SITE_FITS, _why_none(verdicts), sites=len(verdicts))


def refused_everywhere(verdicts: Sequence[Verdict]) -> Reason | None:
    """The reason to give up: some site refused the job as it is written, and no other one could take it."""
    refusals = [verdict for verdict in verdicts if verdict.code is VerdictCode.REFUSED_BY_SITE]
    if not refusals or any(verdict.fits or verdict.can_change for verdict in verdicts):
        return None
    return because(ReasonCode.REFUSED_BY_SITE, f"{refusals[0].message} No other site can take it.")


def summary(verdicts: Sequence[Verdict]) -> str:
    """One sentence for a job that would be placed now, or the reason why it would not."""
    fitting = [verdict.site for verdict in verdicts if verdict.fits]
    if not fitting:
        return waiting_reason(verdicts).message
    others = f" ({len(fitting) - 1} more would do)" if len(fitting) > 1 else ""
    return f"It would go to {fitting[0]} now{others}."


def _why_none(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return "The platform has no sites at the moment."
    advice = next((f" Advice: {verdict.advice}." for verdict in verdicts if verdict.advice), "")
    causes = " ".join(verdict.message for verdict in verdicts[:3])
    return f"No site can run the job as it is asked for. {causes}{advice}"


def queued_reason(told: Reason | None, verdicts: Sequence[Verdict], *, backing_off: bool) -> Reason:
    """Why a queued job is still queued: its own pause, auth or a ceiling, else today's verdicts, else its turn."""
    if told is not None and (backing_off or told.code in HELD):
        return told
    if any(verdict.fits for verdict in verdicts):
        return because(ReasonCode.WAITING_TO_BE_PLACED)
    return waiting_reason(verdicts)


def last_known(job: Job, record: SiteRecord | None) -> Reason | None:
    """Why what is shown of a job in flight is what was last known: its site or its node is away, or not believed."""
    attempt = job.attempt
    if attempt is None:
        return None
    known, since = f"the job was last known to be {job.state}.", None
    if record is not None and record.unreachable_since is not None:
        since = record.unreachable_since.isoformat()
        words = f"{attempt.site} cannot be reached since {since}; {known}"
    elif record is not None and record.suspect:
        words = f"What {attempt.site} shows cannot be believed at the moment; {known}"
    elif attempt.disconnected_at is not None:
        since = attempt.disconnected_at.isoformat()
        words = f"The node of the job at {attempt.site} is away since {since}; {known}"
    else:
        return None
    if since is not None and job.spec.on_lost is OnLost.WAIT:
        words += " The job waits for it, as it asked."
    return because(ReasonCode.WAITING_FOR_SITE, words, site=attempt.site, since=since)
