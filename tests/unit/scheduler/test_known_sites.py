"""The scheduler's view of the registry: ready only while the registry answers, whatever is still known."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.scheduler.known_sites import KnownSites
from services.scheduler.wakes import Wakes
from shared.errors import Unavailable
from shared.site import Site
from tests.builders import a_site
from tests.doubles.engine import EngineDouble
from tests.unit.scheduler.world import a_world

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


async def test_a_site_that_keeps_us_out_is_told_and_keeps_its_last_namespaces() -> None:
    lyon, bari = EngineDouble(), EngineDouble(away=True)
    unused: Any = None
    sites = KnownSites(Registry(), {"lyon": lyon, "bari": bari}, unused, Wakes(), 60)
    sites.by_name = {name: a_site(name) for name in ("lyon", "bari")}
    assert sites.troubles() == {"lyon": "not asked yet", "bari": "not asked yet"}
    await sites.look()
    assert sites.troubles() == {"lyon": "", "bari": "the cluster is away"}
    assert set(sites.namespaces) == {"lyon"}
    lyon.away, bari.away = True, False
    await sites.look()
    assert sites.troubles() == {"lyon": "the cluster is away", "bari": ""}
    assert set(sites.namespaces) == {"lyon", "bari"}


async def test_what_keeps_us_out_of_a_cluster_is_told_of_each_of_its_sites() -> None:
    unused: Any = None
    sites = KnownSites(Registry(), {"czechia": EngineDouble(away=True)}, unused, Wakes(), 60)
    sites.by_name = {name: a_site(name, cluster="czechia") for name in ("prague", "brno")}
    await sites.look()
    assert sites.troubles() == dict.fromkeys(("prague", "brno"), "the cluster is away")


async def test_what_keeps_us_out_of_a_site_is_shown_and_takes_nothing_from_the_others(tmp_path: Path) -> None:
    async with a_world(tmp_path, a_site("prague"), a_site("lyon"), namespaces_s=0.01) as world:
        world.engines["lyon"].away = True
        async with world.ask() as client, asyncio.timeout(20):
            while (answer := await client.get("/readyz")).json()["sites"]["lyon"] != "the cluster is away":
                await asyncio.sleep(0)
    assert answer.status_code == 200
    assert answer.json()["sites"]["prague"] == "ok"
