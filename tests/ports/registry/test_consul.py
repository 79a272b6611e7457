"""The registry on a real Consul: what is registered, and what is forged."""

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.adapters.consul import ListedSite
from shared.site import SiteHealth
from tests.ports.registry.worlds import LYON, PRAGUE, Registered, World, meta_of, on_consul

pytestmark = pytest.mark.consul
ROOT = Path(__file__).parents[3]
PASSING, WARNING, CRITICAL, MISCONFIGURED = (
    SiteHealth.PASSING, SiteHealth.WARNING, SiteHealth.CRITICAL, SiteHealth.MISCONFIGURED,
)  # fmt: skip


def registered(world: World) -> Registered:
    assert isinstance(world.behind, Registered)
    return world.behind


async def test_sites_of_both_datacenters_are_in_one_view(consul_world: World) -> None:
    await consul_world.all_well()
    prague, lyon = await consul_world.registry.sites()
    assert (prague.address, lyon.address) == ("https://nomad.prague.example:4646", "https://nomad.lyon.example:4646")


async def test_the_words_of_a_failing_check_reach_the_operator(consul_world: World) -> None:
    await consul_world.all_well()
    await registered(consul_world).say("dc2", "serai-site-lyon", "critical", "HTTP 500: No cluster leader\n")
    lyon = await consul_world.shows("lyon", CRITICAL)
    assert lyon.health_reason == "Nomad: HTTP 500: No cluster leader"
    await registered(consul_world).say("dc2", "serai-site-lyon", "warning", "slow")
    lyon = await consul_world.shows("lyon", WARNING)
    assert lyon.health_reason == "Nomad: slow"


async def test_a_site_in_maintenance_is_critical_with_the_reason_given(consul_world: World) -> None:
    await consul_world.all_well()
    behind = registered(consul_world)
    await behind.put("dc2", "/v1/agent/service/maintenance/serai-site-lyon?enable=true&reason=new+switch", None)
    lyon = await consul_world.shows("lyon", CRITICAL)
    assert "new switch" in lyon.health_reason
    await behind.put("dc2", "/v1/agent/service/maintenance/serai-site-lyon?enable=false", None)
    await consul_world.shows("lyon", PASSING)


async def test_a_site_that_deregisters_is_critical_and_keeps_its_facts(consul_world: World) -> None:
    await consul_world.all_well()
    await registered(consul_world).deregister("dc2", "serai-site-lyon")
    lyon = await consul_world.shows("lyon", CRITICAL)
    assert "no service serai-site with the meta `site` = lyon" in lyon.health_reason
    assert (lyon.country, lyon.vos) == ("CZ", ("vo.climate.example",))
    await registered(consul_world).register("dc2", "lyon")
    await consul_world.shows("lyon", PASSING)


async def test_a_bad_value_makes_the_site_misconfigured_until_it_is_mended(consul_world: World) -> None:
    await consul_world.all_well()
    behind = registered(consul_world)
    await behind.register("dc2", "lyon", Meta=meta_of("lyon", cost_per_core_hour="free"))
    lyon = await consul_world.shows("lyon", MISCONFIGURED)
    assert "`cost_per_core_hour` = 'free': write a number from 0 to 10000, as 0.02" in lyon.health_reason
    await behind.register("dc2", "lyon", Meta=meta_of("lyon", cost_per_core_hour="0"))
    assert (await consul_world.shows("lyon", PASSING)).cost_per_core_hour == 0
    assert {view["prague"].health for view in consul_world.views[-3:]} == {PASSING}


async def test_forged_entries_are_ignored_and_logged_once(consul_world: World) -> None:
    await consul_world.all_well()
    behind = registered(consul_world)
    with capture_logs() as told:
        await behind.register("dc2", "mallory", ID="forged-1")
        await behind.register("dc2", "prague", ID="forged-2", Meta=meta_of("prague", country="XX"))
        away = meta_of("lyon", nomad_address="https://collector.example:4646", country="XX")
        await behind.register("dc2", "lyon", ID="forged-3", Meta=away)
        for _ in range(3):
            await behind.say("dc2", "forged-3", "warning")
            await behind.say("dc2", "forged-3", "passing")
        await behind.check("lyon", False)
        await consul_world.shows("lyon", CRITICAL)
    assert {site.country for view in consul_world.views[1:] for site in view.values()} <= {"CZ", "ZZ"}
    assert {site.address for view in consul_world.views for site in view.values()} <= {
        "", "https://nomad.prague.example:4646", "https://nomad.lyon.example:4646",
    }  # fmt: skip
    not_listed = [line["site"] for line in told if line["event"] == "site_not_listed"]
    ignored = [line["why"] for line in told if line["event"] == "copy_ignored"]
    assert sorted(not_listed) == ["mallory", "prague"]
    assert len(ignored) == 1 and "collector.example" in ignored[0]


async def test_plain_nomad_services_are_sites_by_a_mapping_in_settings(two_datacenters: dict[str, str]) -> None:
    listed = ListedSite(
        name="bari", datacenter="dc2", service="nomad", tags=("http", "nomad-region=bari"), country="IT",
        vos=("vo.bio.example",), region="bari", allowed_hosts=("192.0.2.0/24",),
    )  # fmt: skip
    async with on_consul(two_datacenters, [listed, PRAGUE]) as world:
        behind = registered(world)
        for tag in ("http", "rpc", "serf"):
            await behind.register(
                "dc2", "bari", ID=f"_nomad-server-{tag}", Name="nomad", Tags=[tag, "nomad-region=bari"],
                Meta={"external-source": "nomad"}, status="passing" if tag == "http" else "critical",
            )  # fmt: skip
        bari = await world.shows("bari", PASSING)
        assert (bari.address, bari.region, bari.country) == ("https://192.0.2.7:4646", "bari", "IT")


async def test_the_example_for_operators_is_a_site_that_works(two_datacenters: dict[str, str]) -> None:
    service = json.loads((ROOT / "compose" / "consul" / "serai-site.json").read_text())["service"]
    listed = ListedSite(name=service["meta"]["site"], datacenter="dc2")
    async with on_consul(two_datacenters, [listed, PRAGUE]) as world:
        behind = registered(world)
        definition = {key.capitalize() if key != "id" else "ID": value for key, value in service.items()}
        definition.pop("Check")
        await behind.register("dc2", listed.name, **definition)
        view = await world.until(lambda view: view["lyon"].country == "FR" and view["lyon"].health is PASSING)
        assert view["lyon"].address == service["meta"]["nomad_address"]
        assert view["lyon"].carbon_g_per_kwh == float(service["meta"]["carbon_g_per_kwh"])


async def test_the_noise_of_thousands_of_other_services_does_not_matter(two_datacenters: dict[str, str]) -> None:
    async with on_consul(two_datacenters, [PRAGUE, LYON]) as world:
        await world.all_well()
        behind, before = registered(world), len(world.views)
        await behind.make_noise("dc2", 3000)
        assert len(world.views) == before
        await behind.check("lyon", False)
        await world.shows("lyon", CRITICAL, within_s=5)
        await behind.put("dc2", "/v1/catalog/deregister", {"Node": "noise"})
