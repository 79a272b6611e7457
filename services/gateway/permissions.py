"""Who may see what. Pure.

Auth says which verbs a principal holds in which VO; here that becomes a look at one job or event. What one may not
see looks exactly like what is not there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.contracts.commands import Principal
from shared.contracts.questions import Context, Membership

VIEW_OWN: Final = "job.view_own"
VIEW_VO: Final = "job.view_vo"
LOGS_OWN: Final = "job.logs_own"
LOGS_VO: Final = "job.logs_vo"
CORDON: Final = "site.cordon"
SITES: Final = "site.view"
SUBMIT: Final = "job.submit"


@dataclass(frozen=True, slots=True)
class Sight:
    """What one principal sees: own jobs in `own_vos`, all jobs in `whole_vos` or, with `everything`, in every VO.

    Logs and outputs may hold data: they are read in `own_logs` if one's own, in `whole_logs` if anybody's.
    `all_sites`: hears what is told of sites to operators.
    """

    issuer: str
    subject: str
    own_vos: frozenset[str]
    whole_vos: frozenset[str]
    everything: bool = False
    own_logs: frozenset[str] = frozenset()
    whole_logs: frozenset[str] = frozenset()
    all_sites: bool = False

    def sees(self, vo: str, issuer: str, subject: str) -> bool:
        """Whether a job of this VO and owner is visible."""
        if self.sees_all_of(vo):
            return True
        return vo in self.own_vos and subject == self.subject and issuer == self.issuer

    def sees_all_of(self, vo: str) -> bool:
        """Whether all jobs of a VO are visible."""
        return self.everything or vo in self.whole_vos

    def hears(self, vo: str) -> bool:
        """Whether anything of a VO may be told: one's own jobs, all of them, or the sites that serve it."""
        return vo in self.own_vos or self.sees_all_of(vo)

    def reads_files(self, vo: str, issuer: str, subject: str) -> bool:
        """Whether logs and outputs of a visible job may be read."""
        return vo in self.whole_logs or (vo in self.own_logs and self.owns(issuer, subject))

    def owns(self, issuer: str, subject: str) -> bool:
        return subject == self.subject and issuer == self.issuer


@dataclass(frozen=True, slots=True)
class Told:
    """What decides about one entry of the event log; `vo` is None for facts of a site told to its operators."""

    vo: str | None
    owner_issuer: str | None
    owner_subject: str | None
    job_id: str | None
    state: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What a reader of the event log asked for; empty = no restriction. All must hold; of `states` and `vos`, one."""

    job_id: str | None = None
    vos: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()

    def wants(self, told: Told) -> bool:
        return (
            (self.job_id is None or told.job_id == self.job_id)
            and (not self.vos or told.vo in self.vos)
            and (not self.states or told.state in self.states)
            and all(told.labels.get(name) == value for name, value in self.labels)
        )


def sight_of(context: Context) -> Sight:
    """The sight that a context gives."""
    return sight(context.principal, context.memberships, context.platform_verbs)


def sight(principal: Principal, memberships: Sequence[Membership], platform_verbs: frozenset[str]) -> Sight:
    """The sight of a principal with these memberships and verbs."""
    return Sight(
        issuer=principal.issuer,
        subject=principal.subject,
        own_vos=frozenset(m.vo for m in memberships if VIEW_OWN in m.verbs or VIEW_VO in m.verbs),
        whole_vos=frozenset(m.vo for m in memberships if VIEW_VO in m.verbs),
        everything=VIEW_VO in platform_verbs,
        own_logs=frozenset(m.vo for m in memberships if LOGS_OWN in m.verbs or LOGS_VO in m.verbs),
        whole_logs=frozenset(m.vo for m in memberships if LOGS_VO in m.verbs),
        all_sites=CORDON in platform_verbs,
    )


def may_hear(sight: Sight, told: Told) -> bool:
    """Whether an entry of the event log may be told: as its job; of a site, to the VO it was told for."""
    if told.vo is None:
        return sight.all_sites
    if told.job_id is None:
        return told.vo in sight.own_vos
    return sight.sees(told.vo, told.owner_issuer or "", told.owner_subject or "")
