"""The SiteRegistry on Consul: listed sites, found by blocking queries, in one view over all datacenters.

Three failures are kept apart. Consul says that a check is critical: `critical`. Our agent answers, a datacenter does
not: its sites are `unreachable`. Our own agent is away or refuses our token: that says nothing about the sites, which
keep their last known health for `last_known_s`; `ready` names the culprit. Names that are not listed never appear.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from shared import damping
from shared.adapters.consul.agent import ConsulAgent
from shared.adapters.consul.judging import Judged, judge, strangers, unheard
from shared.adapters.consul.reading import instances_of
from shared.adapters.consul.settings import ListedSite
from shared.adapters.consul.watching import Answered, Failed, Query, watch
from shared.adapters.published_view import PublishedView
from shared.damping import Damped
from shared.errors import Misconfigured, SeraiError, Unavailable
from shared.runtime import logs
from shared.site import Site, SiteHealth

log = logs.get("adapters.consul")

_MOST_SAID: Final = 1000
"""Sentences that are kept in order to be logged once; whoever invents names must not fill our memory."""
_LEAST_WAIT_S: Final = 0.01
_ON_PROBATION: Final = "its checks pass again, but not for long enough yet"


@dataclass(slots=True)
class _Known:
    """What is known of one listed site. `site` is made of settings alone until `described`."""

    listed: ListedSite
    site: Site
    described: bool = False
    damped: Damped | None = None
    reason: str = ""
    wrong: str = ""

    def shown(self) -> Site:
        if self.damped is None:
            return self.site
        health = SiteHealth.MISCONFIGURED if self.wrong else self.damped.shown
        return self.site.model_copy(update={"health": health, "health_reason": self.wrong or self._why(health)})

    def _why(self, health: SiteHealth) -> str:
        if health is SiteHealth.PASSING or self.damped is None:
            return ""
        waits = health not in damping.GOOD and self.damped.seen in damping.GOOD
        return _ON_PROBATION if waits else self.reason


@dataclass(slots=True)
class _Followed:
    """One query and how it fares: `away_since` is set while our agent does not answer it."""

    sites: list[_Known] = field(default_factory=list)
    heard: bool = False
    error: SeraiError | None = None
    away_since: float | None = None


class ConsulRegistry:
    """See `shared.ports.SiteRegistry`. Run `run` as a named task; before it has heard Consul, sites are unreachable."""

    def __init__(self, agent: ConsulAgent, listed: Sequence[ListedSite], rng: random.Random | None = None) -> None:
        self._agent = agent
        self._rules = agent.settings.damping
        self._rng = rng or random.Random()
        self._known = {site.name: _Known(site, unheard(site)) for site in listed}
        if len(self._known) != len(listed):
            raise Misconfigured("settings: a site is listed twice for Consul")
        self._followed: dict[Query, _Followed] = defaultdict(_Followed)
        for known in self._known.values():
            self._followed[Query(known.listed.service, known.listed.datacenter)].sites.append(known)
        self._view = PublishedView([known.site for known in self._known.values()])
        self._said: set[str] = set()
        self._stirred = asyncio.Event()

    async def sites(self) -> Sequence[Site]:
        return self._view.sites

    def changes(self) -> AsyncIterator[Sequence[Site]]:
        return self._view.changes()

    async def ready(self) -> None:
        """Return when Consul answers us: for one datacenter at least, and for each it has at least tried.

        Raises Unavailable, Misconfigured. What one datacenter alone does, away or refusing our token, is a condition
        of its sites, not of ours.
        """
        errors = [followed.error for followed in self._followed.values() if followed.error is not None]
        if errors and len(errors) == len(self._followed):
            raise errors[0]
        for query, followed in self._followed.items():
            if not followed.heard and followed.error is None:
                raise Unavailable(
                    f"Consul at {self._agent.settings.address} has not answered about {query.service} in "
                    f"{query.datacenter} yet", code="consul_away",
                )  # fmt: skip

    async def run(self) -> None:
        """Follow Consul for ever."""
        async with asyncio.TaskGroup() as group:
            for query in self._followed:
                group.create_task(self._follow(query), name=f"consul.{query.datacenter}.{query.service}")
            group.create_task(self._let_time_pass(), name="consul.damping")

    # -- what Consul says -----------------------------------------------------------------------------------------

    async def _follow(self, query: Query) -> None:
        async for told in watch(self._agent, query, self._rng):
            followed = self._followed[query]
            if isinstance(told, Answered):
                self._hear(query, followed, told)
            elif told.datacenter_away:
                self._miss(query, followed, told)
            else:
                self._lose_agent(query, followed, told)
            self._publish()

    def _hear(self, query: Query, followed: _Followed, told: Answered) -> None:
        if followed.error is not None or not followed.heard:
            log.info("consul_answers", service=query.service, datacenter=query.datacenter)
        followed.heard, followed.error, followed.away_since = True, None, None
        instances = instances_of(told.entries)
        for name in strangers([known.listed for known in followed.sites], instances):
            self._say_once("site_not_listed", f"{query.datacenter}/{name}", site=name, datacenter=query.datacenter)
        for known in followed.sites:
            self._take(known, judge(known.listed, instances, known.site.address if known.described else ""))

    def _miss(self, query: Query, followed: _Followed, told: Failed) -> None:
        if followed.error is not None or not followed.heard or self._any_reachable(followed):
            log.warning("datacenter_away", datacenter=query.datacenter, culprit=told.error.what)
        followed.heard, followed.error, followed.away_since = True, None, None
        reason = f"Consul's datacenter {query.datacenter} does not answer: {told.error.what}"
        for known in followed.sites:
            self._take(known, Judged(SiteHealth.UNREACHABLE, reason))

    def _lose_agent(self, query: Query, followed: _Followed, told: Failed) -> None:
        if followed.error is None or followed.error.code != told.error.code:
            log.warning("consul_away", datacenter=query.datacenter, culprit=told.error.what)
        followed.error = told.error
        if followed.away_since is None:
            followed.away_since = self._now()

    def _take(self, known: _Known, judged: Judged) -> None:
        for sentence in judged.ignored:
            self._say_once("copy_ignored", sentence, site=known.listed.name, why=sentence)
        if judged.wrong and judged.wrong != known.wrong:
            log.warning("site_misconfigured", site=known.listed.name, why=judged.wrong)
        if judged.site is not None:
            if not known.described:
                known.damped = None
            known.site, known.described = judged.site, True
        if judged.health is not SiteHealth.UNREACHABLE:
            known.wrong = judged.wrong
        known.reason = judged.reason
        self._damp(known, judged.health)

    # -- time -----------------------------------------------------------------------------------------------------

    def _damp(self, known: _Known, seen: SiteHealth) -> None:
        now = self._now()
        before = known.damped
        known.damped = damping.after(before, seen, now, self._rules) if before else damping.first(seen, now)
        if before is None or before.shown is not known.damped.shown:
            log.info("site_health", site=known.listed.name, health=known.damped.shown, reason=known.reason)

    async def _let_time_pass(self) -> None:
        """Show what has lasted long enough; nothing of Consul need happen for it."""
        while True:
            self._stirred.clear()
            moments = [moment for known in self._known.values() if (moment := self._due(known)) is not None]
            moments += [
                moment for followed in self._followed.values() if (moment := self._expiry(followed)) is not None
            ]
            # Never "now": a clock that rounds would bring us here again without having moved.
            due = max(min(moments), self._now() + _LEAST_WAIT_S) if moments else None
            try:
                async with asyncio.timeout_at(due):
                    await self._stirred.wait()
            except TimeoutError:
                self._advance()
                self._publish()

    def _due(self, known: _Known) -> float | None:
        return damping.due(known.damped, self._rules) if known.damped else None

    def _expiry(self, followed: _Followed) -> float | None:
        """When the last known health stops to count; None while it does not grow old, or has long been dropped."""
        if followed.away_since is None:
            return None
        moment = followed.away_since + self._agent.settings.last_known_s
        dropped = all(known.damped is None or known.damped.seen is SiteHealth.UNREACHABLE for known in followed.sites)
        return None if dropped else moment

    def _advance(self) -> None:
        now = self._now()
        for followed in self._followed.values():
            expiry = self._expiry(followed)
            for known in followed.sites:
                if expiry is not None and now >= expiry and followed.error is not None:
                    known.reason = f"its last known health is too old: {followed.error.what}"
                    self._damp(known, SiteHealth.UNREACHABLE)
                elif (due := self._due(known)) is not None and now >= due and known.damped is not None:
                    self._damp(known, known.damped.seen)

    def _publish(self) -> None:
        for followed in self._followed.values():
            for known in followed.sites:
                if known.damped is None and followed.error is not None:
                    known.site = known.site.model_copy(update=_never_heard(followed.error))
        self._view.publish([known.shown() for known in self._known.values()])
        self._stirred.set()

    def _any_reachable(self, followed: _Followed) -> bool:
        return any(known.damped and known.damped.seen is not SiteHealth.UNREACHABLE for known in followed.sites)

    def _say_once(self, event: str, sentence: str, **fields: object) -> None:
        if sentence not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(sentence)
            log.warning(event, **fields)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _never_heard(error: SeraiError) -> dict[str, object]:
    """Of a site that Consul never told about: unreachable, or misconfigured where an operator of ours has to act."""
    health = SiteHealth.MISCONFIGURED if isinstance(error, Misconfigured) else SiteHealth.UNREACHABLE
    return {"health": health, "health_reason": error.what}
