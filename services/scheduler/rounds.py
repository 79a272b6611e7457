"""One round of placing: which queued job goes where, over one snapshot. Pure.

No job holds up the next: what fits nowhere is left out with its reason, and so is, without looking again, every other
job of the same shape. Who may run where is asked of auth between two plannings of the same round: `plan` says what it
needs to know, `placing.py` finds out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.scheduler import explaining, placement
from services.scheduler.placement import Snapshot
from services.scheduler.records import Job, Need
from shared.contracts import policies
from shared.contracts.commands import Principal
from shared.contracts.policies import Policy
from shared.contracts.reasons import Reason, ReasonCode, Verdict, because
from shared.site import Site


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

    `policy`: what the platform, the VO and the site allow together; `policy_anywhere`: the platform and the VO alone.
    """

    allowed: bool
    message: str = ""
    everywhere: bool = False
    away: bool = False
    policy: Policy | None = None
    policy_anywhere: Policy | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A job goes to a site; the receipt holds every site's verdict."""

    job: Job
    site: str
    need: Need
    receipt: tuple[Verdict, ...]


@dataclass(slots=True)
class Plan:
    """What a round has come to. `stuck` are shapes that fit nowhere now, with why."""

    snapshot: Snapshot
    choices: list[Choice] = field(default_factory=list)
    questions: set[Question] = field(default_factory=set)
    stuck: dict[str, Reason] = field(default_factory=dict)
    waits: list[tuple[Job, Reason]] = field(default_factory=list)
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
) -> Plan:
    """Places up to `most` of the (job, shape) in their order. Where an answer is missing, a yes is assumed and asked
    for: a plan with `questions` is not to be carried out.
    """
    made = Plan(snapshot)
    for job, shape in waiting:
        if len(made.choices) + len(made.waits) >= most:
            break
        if shape not in made.stuck:
            _place(made, job, shape, answers, now, namespace_of(job.spec.vo))
    return made


def _place(made: Plan, job: Job, shape: str, answers: Mapping[Question, Answer], now: datetime, namespace: str) -> None:
    closed: dict[str, str] = {}
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
        elif answer.away:
            made.waits.append((job, because(ReasonCode.WAITING_FOR_AUTHORISATION)))
            return
        elif answer.everywhere:
            made.forbidden.append((job, answer.message))
            return
        elif not answer.allowed:
            closed[site] = answer.message
            continue
        elif why := _forbidden_anywhere(job, answer):
            made.forbidden.append((job, why))
            return
        elif why := _forbidden_here(job, answer, made.snapshot.sites[site].site):
            closed[site] = why
            continue
        _choose(made, job, site, verdicts)
        return


def _forbidden_anywhere(job: Job, answer: Answer) -> str:
    """What the policy of the platform and the VO has against the job by now; empty when nothing."""
    if answer.policy_anywhere is None:
        return ""
    found = policies.objections(policies.demand_of(job.spec), answer.policy_anywhere, f"the VO {job.spec.vo}")
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


def _not_now(made: Plan, job: Job, shape: str, verdicts: tuple[Verdict, ...], closed: Mapping[str, str]) -> None:
    refusal = explaining.refused_everywhere(verdicts)
    if refusal is not None:
        made.hopeless.append((job, refusal, verdicts))
    elif closed:
        made.waits.append((job, explaining.waiting_reason(verdicts)))
    else:
        made.stuck[shape] = explaining.waiting_reason(verdicts)
