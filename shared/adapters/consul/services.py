"""Our own services in Consul: each copy registers itself, and finds the healthy copies of the others.

How a process uses it::

    services = ConsulServices(ConsulAgent(settings), follow=("auth", "monitor"))
    service.tasks["consul.register"] = lambda: services.keep(Copy("scheduler", "scheduler-7f3a", url))
    service.tasks["consul.services"] = services.run
    service.closers.insert(0, lambda: services.withdraw(copy))   # before the door closes: nobody is sent to us any more
    ...
    services.addresses("auth")    # ("http://10.0.0.5:8081", "http://10.0.0.6:8081"), now, without waiting

`addresses` never waits and never fails: while Consul is away it goes on telling the last known copies. Addresses
outside the setting `service_hosts` are left out, because whoever asks sends the services' secret along.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.adapters.consul import addresses
from shared.adapters.consul.agent import ConsulAgent, http_check
from shared.adapters.consul.reading import Instance, instances_of
from shared.adapters.consul.watching import Answered, Query, watch
from shared.errors import Misconfigured, SeraiError, Unavailable
from shared.runtime import logs
from shared.runtime.retrying import Backoff
from shared.site import SiteHealth

log = logs.get("adapters.consul.services")

PREFIX: Final = "serai-"
"""Our services' names in Consul begin so: one ACL rule covers them."""
_SCHEME_KEY: Final = "scheme"


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy of one of our services: its name (`scheduler`), an id of its own, and the URL under which others and
    Consul's agent reach it. Consul asks `<url>/readyz` every `check_s`, and forgets a copy that fails for long. Raises
    Misconfigured for a URL that is none.
    """

    service: str
    instance: str
    url: str
    check_s: float = 5.0
    check_timeout_s: float = 3.0
    forget_after_s: float = 600.0

    def __post_init__(self) -> None:
        if addresses.place_of(self.url) is None:
            raise Misconfigured(f"{self.service} cannot be registered as {self.url!r}: write http(s)://host:port")

    @property
    def place(self) -> addresses.Place:
        found = addresses.place_of(self.url)
        assert found is not None
        return found


class ConsulServices:
    """Registration and discovery over one agent. `follow` are the services whose addresses will be asked for."""

    def __init__(
        self,
        agent: ConsulAgent,
        *,
        follow: Sequence[str] = (),
        look_s: float = 15.0,
        rng: random.Random | None = None,
    ) -> None:
        self._agent = agent
        self._look_s = look_s
        self._rng = rng or random.Random()
        self._copies: dict[str, tuple[str, ...]] = {}
        self._errors: dict[str, SeraiError | None] = dict.fromkeys(follow)
        self._heard = {service: asyncio.Event() for service in follow}
        self._strangers: set[str] = set()

    # -- ourselves ------------------------------------------------------------------------------------------------

    async def register(self, copy: Copy) -> None:
        """Register a copy now; the same again changes nothing. Raises Unavailable, or Misconfigured (token)."""
        place = copy.place
        check = http_check(
            f"{place.url}/readyz", interval_s=copy.check_s, timeout_s=copy.check_timeout_s,
            forget_after_s=copy.forget_after_s,
        )  # fmt: skip
        await self._agent.register(
            PREFIX + copy.service, copy.instance, place.host, place.port, meta={_SCHEME_KEY: place.scheme}, check=check
        )

    async def withdraw(self, copy: Copy) -> None:
        """Take a copy out; when Consul is away it forgets us by itself later (`forget_after_s`). Never raises."""
        try:
            await self._agent.deregister(copy.instance)
            log.info("withdrawn", service=copy.service, instance=copy.instance)
        except (Unavailable, Misconfigured) as error:
            log.warning("not_withdrawn", service=copy.service, instance=copy.instance, culprit=error.what)

    async def keep(self, copy: Copy) -> None:
        """Be registered, for ever: also after an agent that lost its state has come back."""
        settings = self._agent.settings
        backoff = Backoff(settings.retry_first_s, settings.retry_most_s, self._rng)
        while True:
            try:
                if not await self._is_registered(copy):
                    await self.register(copy)
                    log.info("registered", service=copy.service, instance=copy.instance, url=copy.url)
            except (Unavailable, Misconfigured) as error:
                pause = backoff.next_s()
                log.warning("not_registered", service=copy.service, culprit=error.what, again_in_s=round(pause, 2))
            else:
                backoff.reset()
                pause = self._look_s * (0.8 + 0.4 * self._rng.random())
            await asyncio.sleep(pause)

    async def _is_registered(self, copy: Copy) -> bool:
        found, place = await self._agent.registered(copy.instance), copy.place
        if found is None:
            return False
        meta = found.get("Meta") or {}
        there = (found.get("Service"), found.get("Address"), found.get("Port"), meta.get(_SCHEME_KEY))
        return there == (PREFIX + copy.service, place.host, place.port, place.scheme)

    # -- the others -----------------------------------------------------------------------------------------------

    def addresses(self, service: str) -> tuple[str, ...]:
        """URLs of the copies of a followed service, sorted; empty before the first answer, or where none is there.

        The healthy ones; where none is healthy, all of them, since a question that may be answered beats none. While
        Consul is away, those last known.
        """
        if service not in self._errors:
            raise Misconfigured(f"{service} is not followed: name it in `follow`")
        return self._copies.get(service, ())

    async def known(self, service: str, within_s: float = 10.0) -> tuple[str, ...]:
        """`addresses`, once Consul has answered for the service. Raises Unavailable after `within_s`."""
        try:
            async with asyncio.timeout(within_s):
                await self._heard[service].wait()
        except TimeoutError as late:
            error = self._errors[service]
            why = error.what if error else f"no answer within {within_s:g} s"
            raise Unavailable(f"Consul has not told where {service} is: {why}", code="consul_away") from late
        return self.addresses(service)

    async def ready(self) -> None:
        """Return when Consul answers for every followed service. Raises its culprit."""
        for service, error in self._errors.items():
            if error is not None:
                raise error
            if not self._heard[service].is_set():
                raise Unavailable(f"Consul has not told where {service} is yet", code="consul_away")

    async def run(self) -> None:
        """Follow the services for ever."""
        async with asyncio.TaskGroup() as group:
            for service in self._errors:
                group.create_task(self._follow(service), name=f"consul.{service}")
            if not self._errors:
                await asyncio.Event().wait()

    async def _follow(self, service: str) -> None:
        async for told in watch(self._agent, Query(PREFIX + service), self._rng):
            if isinstance(told, Answered):
                self._errors[service] = None
                self._hear(service, instances_of(told.entries))
            else:
                if self._errors[service] is None:
                    log.warning(
                        "service_unknown", service=service, culprit=told.error.what, kept=self._copies.get(service)
                    )
                self._errors[service] = told.error

    def _hear(self, service: str, instances: Sequence[Instance]) -> None:
        now = self._chosen(service, instances)
        if now != self._copies.get(service):
            log.info("service_at", service=service, addresses=now)
        self._copies[service] = now
        self._heard[service].set()

    def _chosen(self, service: str, instances: Sequence[Instance]) -> tuple[str, ...]:
        placed = [(url, instance) for instance in instances if (url := self._url(service, instance)) is not None]
        well = [url for url, instance in placed if instance.health is not SiteHealth.CRITICAL]
        return tuple(sorted(set(well or [url for url, _ in placed])))

    def _url(self, service: str, instance: Instance) -> str | None:
        place = addresses.made(instance.meta.get(_SCHEME_KEY, "http"), instance.address, instance.port)
        if place is not None and place.scheme in ("http", "https") and addresses.allowed(
            place.host, self._agent.settings.service_hosts
        ):  # fmt: skip
            return place.url
        said = f"{service} {instance.address}:{instance.port}"[:200]
        if said not in self._strangers and len(self._strangers) < 1000:
            self._strangers.add(said)
            log.warning("address_ignored", service=service, address=f"{instance.address}:{instance.port}"[:100])
        return None
