"""The registry while a real Consul is killed, frozen, cut off or refuses us."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from shared.adapters.consul import ConsulAgent, ConsulRegistry, ListedSite
from shared.adapters.consul.throwaway import ThrowAwayConsul, installed
from shared.errors import Misconfigured, SeraiError, Unavailable
from shared.site import SiteHealth
from tests.ports.registry.conftest import MISSING
from tests.ports.registry.worlds import PRAGUE, RULES, Registered, World, addresses, on_consul, reading, settings

pytestmark = [pytest.mark.consul, pytest.mark.crash]
PASSING, CRITICAL, UNREACHABLE, MISCONFIGURED = (
    SiteHealth.PASSING, SiteHealth.CRITICAL, SiteHealth.UNREACHABLE, SiteHealth.MISCONFIGURED,
)  # fmt: skip
Agents = dict[str, ThrowAwayConsul]


async def culprit(world: World, kind: type[SeraiError], within_s: float = 30) -> str:
    """What `ready` says, once it says something of this kind."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                await world.registry.ready()
            except kind as error:
                return error.what
            except SeraiError:
                pass
            await asyncio.sleep(0)


async def is_ready(world: World, within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while True:
            try:
                return await world.registry.ready()
            except Unavailable:
                await asyncio.sleep(0)


async def back(agent: ThrowAwayConsul, world: World, site: str) -> None:
    """Start an agent again. It takes its TTL checks for critical until their service speaks, as it does elsewhere."""
    await agent.restart()
    await world.behind.check(site, True)


async def test_our_agent_killed_and_back_changes_no_site(own_datacenters: Agents) -> None:
    async with on_consul(addresses(own_datacenters)) as world:
        await world.all_well()
        seen = len(world.views)
        await own_datacenters["dc1"].kill()
        assert own_datacenters["dc1"].address in await culprit(world, Unavailable)
        assert [site.health for site in await world.registry.sites()] == [PASSING, PASSING]
        await back(own_datacenters["dc1"], world, "prague")
        await is_ready(world)
        await world.behind.check("lyon", False)
        await world.shows("lyon", CRITICAL)
        assert UNREACHABLE not in {site.health for view in world.views[seen:] for site in view.values()}
        await world.shows("prague", PASSING)


async def test_the_last_known_health_is_dropped_when_it_is_too_old(own_datacenters: Agents) -> None:
    async with on_consul(addresses(own_datacenters), last_known_s=2) as world:
        await world.all_well()
        await own_datacenters["dc1"].kill()
        lyon = await world.shows("lyon", UNREACHABLE)
        assert "too old" in lyon.health_reason and lyon.country == "CZ"
        await back(own_datacenters["dc1"], world, "prague")
        await world.all_well()


async def test_a_datacenter_lost_and_back(own_datacenters: Agents) -> None:
    async with on_consul(addresses(own_datacenters)) as world:
        await world.all_well()
        await own_datacenters["dc2"].kill()
        lyon = await world.shows("lyon", UNREACHABLE)
        assert "Consul's datacenter dc2 does not answer" in lyon.health_reason
        assert lyon.address == "https://nomad.lyon.example:4646"
        await world.registry.ready()
        assert world.views[-1]["prague"].health is PASSING
        await back(own_datacenters["dc2"], world, "lyon")
        await world.shows("lyon", PASSING)


async def test_a_datacenter_that_falls_silent_is_unreachable_within_the_time_of_one_query(
    own_datacenters: Agents,
) -> None:
    async with on_consul(addresses(own_datacenters), wait_s=2, call_timeout_s=1) as world:
        await world.all_well()
        own_datacenters["dc2"].freeze()
        begun = asyncio.get_running_loop().time()
        await world.shows("lyon", UNREACHABLE)
        assert asyncio.get_running_loop().time() - begun < 2 * 17 / 16 + 1 + 1 + RULES.worse_after_s + 3
        assert world.views[-1]["prague"].health is PASSING
        own_datacenters["dc2"].freeze(False)
        await world.shows("lyon", PASSING)


async def test_our_agent_frozen_is_told_from_a_silent_datacenter(own_datacenters: Agents) -> None:
    async with on_consul(addresses(own_datacenters), wait_s=2, call_timeout_s=1) as world:
        await world.all_well()
        own_datacenters["dc1"].freeze()
        assert "no answer within" in await culprit(world, Unavailable)
        assert [site.health for site in await world.registry.sites()] == [PASSING, PASSING]
        own_datacenters["dc1"].freeze(False)
        await is_ready(world)
        assert UNREACHABLE not in world.shown("lyon")


async def test_a_check_that_flips_moves_the_site_once(own_datacenters: Agents) -> None:
    async with on_consul(addresses(own_datacenters)) as world:
        await world.all_well()
        flips = itertools.cycle([False, True])
        async with asyncio.timeout(30):
            while world.shown("lyon")[-1] is PASSING:
                await world.behind.check("lyon", next(flips))
        for _ in range(50):
            await world.behind.check("lyon", next(flips))
        await world.behind.check("lyon", True)
        await world.shows("lyon", PASSING)
        assert world.shown("lyon") == [PASSING, CRITICAL, PASSING]


async def test_a_consul_that_lost_its_data_is_read_anew(tmp_path: Path) -> None:
    """A new agent at the old address begins with small indexes: waiting for the old one would last for ever."""
    if installed() is None:
        pytest.skip(MISSING)
    agent = await ThrowAwayConsul.start(tmp_path / "dc1")
    behind = Registered({"dc1": agent.address})
    client = ConsulAgent(settings(agent.address))
    registry = ConsulRegistry(client, [PRAGUE])
    try:
        for number in range(30):
            await behind.register("dc1", "noise", ID=f"noise-{number}", Name="noise")
        await behind.register("dc1", "prague")
        async with reading(World(registry, behind), registry.run) as world:
            await world.shows("prague", PASSING)
            await agent.kill()
            agent.forget()
            await agent.restart()
            prague = await world.shows("prague", CRITICAL)
            assert "no service serai-site" in prague.health_reason
            await behind.register("dc1", "prague")
            await world.shows("prague", PASSING)
    finally:
        await client.aclose()
        await agent.stop()


# -- tokens -------------------------------------------------------------------------------------------------------

MASTER = "5f3c7f0e-0000-4000-8000-6b1f0a9c2d01"
POLICY = (Path(__file__).parents[3] / "compose" / "consul" / "serai-policy.hcl").read_text


@asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[tuple[ThrowAwayConsul, Registered]]:
    """An agent that denies what no token allows, with prague registered by an administrator."""
    if installed() is None:
        pytest.skip(MISSING)
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": MASTER, "agent": MASTER}}
    agent = await ThrowAwayConsul.start(folder / "dc1", more={"acl": acl}, token=MASTER)
    try:
        behind = Registered({"dc1": agent.address}, {"X-Consul-Token": MASTER})
        await behind.register("dc1", "prague")
        yield agent, behind
    finally:
        await agent.stop()


async def token_with(behind: Registered, name: str, rules: str) -> str:
    await behind.put("dc1", "/v1/acl/policy", {"Name": name, "Rules": rules})
    made = await behind.put("dc1", "/v1/acl/token", {"Policies": [{"Name": name}]})
    return str(made["SecretID"])


@asynccontextmanager
async def asked_with(agent: ThrowAwayConsul, token: str, **more: Any) -> AsyncIterator[World]:
    client = ConsulAgent(settings(agent.address, token=token, **more))
    registry = ConsulRegistry(client, [PRAGUE])
    try:
        async with reading(World(registry, Registered({"dc1": agent.address})), registry.run) as world:
            yield world
    finally:
        await client.aclose()


async def test_a_wrong_token_is_told_and_a_narrow_one_looks_like_nothing_registered(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (agent, behind):
        async with asked_with(agent, "11111111-2222-4333-8444-555555555555") as world:
            prague = await world.shows("prague", MISCONFIGURED)
            assert "ACL not found" in prague.health_reason and "docs/consul.md" in prague.health_reason
            assert "ACL not found" in await culprit(world, Misconfigured)
        narrow = await token_with(behind, "narrow", 'service "other" { policy = "read" }')
        async with asked_with(agent, narrow) as world:
            prague = await world.shows("prague", CRITICAL)
            assert "let our token read it" in prague.health_reason


async def test_the_documented_policy_is_enough(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (agent, behind):
        token = await token_with(behind, "serai", POLICY())
        async with asked_with(agent, token) as world:
            await world.shows("prague", PASSING)


async def test_a_token_that_is_revoked_leaves_the_last_known_health(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (agent, behind):
        made = await behind.put("dc1", "/v1/acl/policy", {"Name": "serai", "Rules": POLICY()})
        token = await behind.put("dc1", "/v1/acl/token", {"Policies": [{"ID": made["ID"]}]})
        async with asked_with(agent, token["SecretID"], wait_s=1) as world:
            await world.shows("prague", PASSING)
            await behind.delete("dc1", f"/v1/acl/token/{token['AccessorID']}")
            assert "ACL" in await culprit(world, Misconfigured)
            assert world.shown("prague") == [PASSING]


# -- TLS ----------------------------------------------------------------------------------------------------------


async def test_the_agent_is_verified_against_its_authority_and_name(tmp_path: Path) -> None:
    if installed() is None:
        pytest.skip(MISSING)
    authority, stranger = trustme.CA(), trustme.CA()
    for name, ca in (("ca", authority), ("stranger", stranger)):
        ca.cert_pem.write_to_path(tmp_path / f"{name}.pem")
    certificate = authority.issue_cert("server.dc1.consul")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "agent.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "agent-key.pem")
    agent = await ThrowAwayConsul.start(tmp_path / "dc1", tls=(tmp_path / "agent.pem", tmp_path / "agent-key.pem"))
    trust = {"address": agent.tls_address, "ca_file": tmp_path / "ca.pem", "tls_server_name": "server.dc1.consul"}
    try:
        good = ConsulAgent(settings(**trust))
        assert await good.leader()
        await good.aclose()
        for wrong in ({"ca_file": tmp_path / "stranger.pem"}, {"ca_file": None}, {"tls_server_name": "server.dc2.x"},
                      {"tls_server_name": ""}):  # fmt: skip
            bad = ConsulAgent(settings(**(trust | wrong)))
            with pytest.raises(Misconfigured, match="certificate cannot be verified"):
                await bad.leader()
            await bad.aclose()
    finally:
        await agent.stop()


def test_a_missing_authority_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot use its TLS files"):
        ConsulAgent(settings("https://127.0.0.1:8501", ca_file=tmp_path / "nowhere.pem"))


def test_a_listed_site_needs_a_datacenter_that_consul_could_have() -> None:
    with pytest.raises(ValueError, match="datacenter"):
        ListedSite(name="lyon", datacenter="dc2/../dc1")
