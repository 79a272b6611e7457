"""One round of placing: which queued job goes where, over one snapshot. Pure.

No job holds up the next: what fits nowhere is left out with its reason, and so is, without looking again, every other
job of the same shape, or of the same shape and owner where the reason is the owner's. Who may run where is asked of
auth between two plannings of the same round: `plan` says what it needs to know, `placing.py` finds out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NamedTuple

from services.scheduler import ceilings, explaining, placement, sharing
from services.scheduler.ceilings import InUse
from services.scheduler.placement import Hindrance, Snapshot
from services.scheduler.records import Job, Need
from shared.contracts import policies
from shared.contracts.commands import Principal
from shared.contracts.policies import Ceiling, Policy
from shared.contracts.reasons import Reason, ReasonCode, Verdict, VerdictCode, because
from shared.contracts.suspensions import Suspended
from shared.site import Site

OwnShape = tuple[str, str, str]
"""Issuer and subject of an owner, and the shape of a job of theirs."""
NOTHING: Final = InUse()
NOBODY: Final = Suspended()


@dataclass(frozen=True, slots=True)
class Question:
    """May this owner's job of this VO still run at this site?"""

    principal: Principal
    vo: str
    site: str

    def __hash__(self) -> int:
        return hash((self.principal.issuer, self.principal.subject, self.vo, self.site))


@dataclass(frozen=True, slots=True)
class Answer:
    """Auth's word. `everywhere`: a no that no other site changes. `away`: it did not answer, nothing is known.
    `suspended`: a no that holds until the suspension ends.

    `policy`: what the platform, the VO and the site allow together; `policy_anywhere`: the platform and the VO alone.
    """

    allowed: bool
    message: str = ""
    everywhere: bool = False
    away: bool = False
    suspended: bool = False
    policy: Policy | None = None
    policy_anywhere: Policy | None = None

    @property
    def restricts_use(self) -> bool:
        """Whether it takes knowing what is in use to go by it."""
        return ceilings.restricts(self.policy) or ceilings.restricts(self.policy_anywhere)


@dataclass(frozen=True, slots=True)
class Choice:
    """A job goes to a site; the receipt holds every site's verdict."""

    job: Job
    site: str
    need: Need
    receipt: tuple[Verdict, ...]


class Wait(NamedTuple):
    """A job that waits for something of its own. `briefly`: auth may say something else at any moment."""

    job: Job
    reason: Reason
    briefly: bool = False


@dataclass(slots=True)
class Plan:
    """What a round has come to. `stuck` are shapes that fit nowhere now, with why; `held` the same for one owner."""

    snapshot: Snapshot
    in_use: InUse = field(default_factory=InUse)
    choices: list[Choice] = field(default_factory=list)
    questions: set[Question] = field(default_factory=set)
    stuck: dict[str, Reason] = field(default_factory=dict)
    held: dict[OwnShape, Reason] = field(default_factory=dict)
    waits: list["Wait"] = field(default_factory=list)
    hopeless: list[tuple[Job, Reason, tuple[Verdict, ...]]] = field(default_factory=list)
    forbidden: list[tuple[Job, str]] = field(default_factory=list)


def plan(
    waiting: Iterable[tuple[Job, str]],
    snapshot: Snapshot,
    answers: Mapping[Question, Answer],
    now: datetime,
    *,
    namespace_of: Callable[[str], str],
    most: int,
    in_use: InUse = NOTHING,
    suspended: Suspended = NOBODY,
) -> Plan:
    """Places up to `most` of the (job, shape) in their order, which is shared out where a VO has a ceiling.

    Where an answer is missing, a yes is assumed and asked for: a plan with `questions` is not to be carried out.
    """
    made = Plan(snapshot, in_use)
    for job, shape in sharing.in_turn(waiting, _shared(answers), lambda: made.in_use):
        if len(made.choices) + len(made.waits) >= most:
            break
        if shape in made.stuck or own_shape(job, shape) in made.held:
            continue
        suspension = suspended.of_job(job.owner, job.spec.vo, job.client, job.token_id, now)
        if suspension is not None:
            made.waits.append(Wait(job, because(ReasonCode.SUSPENDED, suspension.words_of_job())))
        else:
            _place(made, job, shape, answers, now, namespace_of(job.spec.vo))
    return made


def _shared(answers: Mapping[Question, Answer]) -> dict[str, Ceiling]:
    """The ceilings over all jobs of each VO that has one."""
    known = ((question.vo, answer.policy_anywhere) for question, answer in answers.items())
    return {vo: policy.vo for vo, policy in known if policy is not None and policy.vo != Ceiling()}


def own_shape(job: Job, shape: str) -> OwnShape:
    return job.owner.issuer, job.owner.subject, shape


def _place(made: Plan, job: Job, shape: str, answers: Mapping[Question, Answer], now: datetime, namespace: str) -> None:
    closed: dict[str, Hindrance] = {}
    while True:
        verdicts = placement.decide(
            job.spec, made.snapshot, namespace=namespace, avoid=job.avoided(now), forbidden=closed, salt=str(job.id)
        )
        if not verdicts or not verdicts[0].fits:
            _not_now(made, job, shape, verdicts, closed)
            return
        site = verdicts[0].site
        question = Question(job.owner, job.spec.vo, site)
        answer = answers.get(question)
        if answer is None:
            made.questions.add(question)
        against = objection(job, answer, made.in_use, made.snapshot.sites[site].site) if answer else None
        match against:
            case None:
                _choose(made, job, site, verdicts)
                return
            case Objection("closed", reason, code):
                closed[site] = code, reason.message
            case Objection("waits", reason):
                made.waits.append(Wait(job, reason, briefly=True))
                return
            case Objection("full", reason):
                _hold(made, job, shape, reason)
                return
            case Objection("forbidden", reason):
                made.forbidden.append((job, reason.message))
                return


# -- what stands against a job ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Objection:
    """What stands against a job at a site that has room for it. `closed`: other sites may do, `code` is the verdict on
    this one. The others hold at every site: it `waits` for auth or the end of a suspension, a ceiling is `full`, or it
    is `forbidden`.
    """

    what: Literal["closed", "waits", "full", "forbidden"]
    reason: Reason
    code: VerdictCode = VerdictCode.POLICY_FORBIDS


def objection(
    job: Job, answer: Answer, in_use: InUse, site: Site, *, handed_in: bool = False
) -> Objection | None:  # fmt: skip
    """The first thing that auth's word, policies and ceilings have against it. `handed_in`: as of a job that is not in
    the queue yet, also whether it alone asks for more than a ceiling can ever let it have.
    """
    if answer.away:
        return Objection("waits", because(ReasonCode.WAITING_FOR_AUTHORISATION))
    if answer.suspended:
        return Objection("waits", because(ReasonCode.SUSPENDED, f"The job waits: {answer.message}"))
    if answer.everywhere:
        return Objection("forbidden", because(ReasonCode.NOT_AUTHORISED, answer.message))
    if not answer.allowed:
        return Objection("closed", because(ReasonCode.NOT_AUTHORISED, answer.message))
    if why := _forbidden_anywhere(job, answer, handed_in=handed_in):
        return Objection("forbidden", because(ReasonCode.NOT_AUTHORISED, why))
    if full := ceilings.reached(job, answer.policy_anywhere, in_use):
        return Objection("full", full, VerdictCode.CEILING_REACHED)
    if why := _forbidden_here(job, answer, site):
        return Objection("closed", because(ReasonCode.NOT_AUTHORISED, why))
    if full := ceilings.reached(job, answer.policy, in_use, site.name):
        return Objection("closed", full, VerdictCode.CEILING_REACHED)
    return None


def _forbidden_anywhere(job: Job, answer: Answer, *, handed_in: bool) -> str:
    """What the policy of the platform and the VO has against the job by now; empty when nothing."""
    if answer.policy_anywhere is None:
        return ""
    demand, whose = policies.demand_of(job.spec), f"the VO {job.spec.vo}"
    found = policies.objections(demand, answer.policy_anywhere, whose, handed_in=handed_in)
    return found[0].message if found else ""


def _forbidden_here(job: Job, answer: Answer, site: Site) -> str:
    """What the policy of the site has against the job, its driver there included; empty when nothing."""
    if answer.policy is None:
        return ""
    demand, whose = policies.demand_of(job.spec), f"the VO {job.spec.vo} at the site {site.name}"
    found = policies.objections(demand, answer.policy, whose)
    driver = policies.driver_objection(demand, site.hardware, answer.policy, whose)
    return found[0].message if found else driver.message if driver else ""


def _choose(made: Plan, job: Job, site: str, verdicts: tuple[Verdict, ...]) -> None:
    need = placement.need_of(job.spec, made.snapshot.sites[site].site)
    made.choices.append(Choice(job, site, need, verdicts))
    made.snapshot = made.snapshot.with_attempt(site, need)
    made.in_use = made.in_use.with_job(job, site)


def _hold(made: Plan, job: Job, shape: str, full: Reason) -> None:
    """A ceiling of the VO holds up its jobs of this shape, one of the owner the owner's."""
    if str(full.details["ceiling"]).startswith("vo."):
        made.stuck[shape] = full
    else:
        made.held[own_shape(job, shape)] = full


def _not_now(
    made: Plan, job: Job, shape: str, verdicts: tuple[Verdict, ...], closed: Mapping[str, Hindrance]
) -> None:  # fmt: skip
    refusal = explaining.refused_everywhere(verdicts)
    if refusal is not None:
        made.hopeless.append((job, refusal, verdicts))
    elif any(code is VerdictCode.CEILING_REACHED for code, _ in closed.values()):
        made.held[own_shape(job, shape)] = explaining.waiting_reason(verdicts)
    elif closed:
        made.waits.append(Wait(job, explaining.waiting_reason(verdicts)))
    else:
        made.stuck[shape] = explaining.waiting_reason(verdicts)
