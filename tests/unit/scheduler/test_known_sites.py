"""The scheduler's view of the registry: ready only while the registry answers, whatever is still known."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from services.scheduler.known_sites import KnownSites
from services.scheduler.wakes import Wakes
from shared.errors import Unavailable
from shared.site import Site
from tests.builders import a_site

pytestmark = pytest.mark.fast


class Registry:
    """One that knows a site, and answers or not."""

    def __init__(self, culprit: str = "") -> None:
        self.culprit = culprit

    async def sites(self) -> Sequence[Site]:
        return (a_site(),)

    async def changes(self) -> AsyncIterator[Sequence[Site]]:
        yield (a_site(),)

    async def ready(self) -> None:
        if self.culprit:
            raise Unavailable(self.culprit)


def known(registry: Registry) -> KnownSites:
    unused: Any = None
    return KnownSites(registry, {}, unused, Wakes(), 60)


async def test_a_registry_that_is_away_is_named_although_its_sites_are_known() -> None:
    sites = known(Registry("Consul at 192.0.2.1 does not answer"))
    sites.by_name = {"prague": a_site()}
    with pytest.raises(Unavailable, match=r"Consul at 192\.0\.2\.1"):
        await sites.ready()


async def test_without_any_site_we_are_not_ready() -> None:
    with pytest.raises(Unavailable, match="no site is known yet"):
        await known(Registry()).ready()


async def test_with_sites_and_a_registry_that_answers_we_are_ready() -> None:
    sites = known(Registry())
    sites.by_name = {"prague": a_site()}
    await sites.ready()
