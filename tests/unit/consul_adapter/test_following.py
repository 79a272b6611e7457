"""Following Consul: indexes, failures and whose they are, what is kept and for how long. Time is simulated."""

import asyncio
import itertools

import httpx2
import pytest

from shared.adapters.consul import ListedSite
from shared.adapters.consul.watching import next_index
from shared.errors import Misconfigured, Unavailable
from shared.site import SiteHealth
from tests.unit.consul_adapter.scripted import ScriptedConsul, an_entry, running

pytestmark = [pytest.mark.fast, pytest.mark.looptime]

PASSING, CRITICAL, UNREACHABLE, MISCONFIGURED = (
    SiteHealth.PASSING, SiteHealth.CRITICAL, SiteHealth.UNREACHABLE, SiteHealth.MISCONFIGURED,
)  # fmt: skip


def now() -> float:
    return asyncio.get_running_loop().time()


# -- queries ------------------------------------------------------------------------------------------------------


def test_an_index_that_goes_backwards_begins_anew_and_zero_never_busies_the_loop() -> None:
    assert next_index(10, 12) == 12
    assert next_index(10, 10) == 10
    assert next_index(10, 4) == 0
    assert next_index(0, 0) == 1


async def test_a_query_names_one_service_one_datacenter_and_waits_for_a_change() -> None:
    consul = ScriptedConsul()
    await consul.say(an_entry())
    async with running(consul.agent(token="t-1", wait_s=30)) as seen:
        await seen.healthy()
        await consul.say(an_entry(country="BE"))
        await seen.until(lambda site: site.country == "BE")
        await consul.say(an_entry())
        await seen.until(lambda site: site.country == "FR")
    first, second, third = consul.seen[:3]
    assert {request.url.path for request in consul.seen} == {"/v1/health/service/serai-site"}
    assert dict(first.url.params) == {"dc": "dc2", "near": "_agent"}
    assert dict(second.url.params) == {"dc": "dc2", "near": "_agent", "index": "11", "wait": "30s"}
    assert dict(third.url.params) == {"dc": "dc2", "near": "_agent", "index": "12", "wait": "30s"}
    assert {request.headers["X-Consul-Token"] for request in consul.seen} == {"t-1"}


async def test_the_environment_cannot_change_token_address_or_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CONSUL_HTTP_TOKEN": "someone-elses", "CONSUL_HTTP_ADDR": "198.51.100.9:1", "CONSUL_HTTP_SSL": "true",
        "CONSUL_HTTP_SSL_VERIFY": "false", "HTTP_PROXY": "http://198.51.100.9:3128",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    consul = ScriptedConsul()
    await consul.agent(address="http://127.0.0.1:8501", token="t-1").leader()
    await consul.agent(address="http://127.0.0.1:8501", token="t-1").copies("serai-site", datacenter=None, index=0)
    await consul.agent(address="http://127.0.0.1:8501").copies("serai-site", datacenter=None, index=0)
    assert {str(request.url.copy_with(path="/", query=None)) for request in consul.seen} == {"http://127.0.0.1:8501/"}
    assert [request.headers.get("X-Consul-Token") for request in consul.seen[1:]] == ["t-1", None]


async def test_a_consul_that_was_restored_to_an_older_index_is_read_anew() -> None:
    consul = ScriptedConsul()
    await consul.say(an_entry(), index=5000)
    async with running(consul.agent()) as seen:
        await seen.healthy()
        await consul.say(an_entry(country="BE"), index=7)
        await seen.until(lambda site: site.country == "BE")
        await consul.say(an_entry(country="NL"))
        await seen.until(lambda site: site.country == "NL")
        await consul.say(an_entry(country="IT"))
        await seen.until(lambda site: site.country == "IT")
    asked = [request.url.params.get("index") for request in consul.seen]
    assert asked[:4] == [None, "5000", None, "8"]


async def test_a_consul_without_a_good_index_is_not_asked_faster_than_the_pace() -> None:
    consul = ScriptedConsul()
    consul.fails = lambda request: httpx2.Response(200, content="[]", headers={"X-Consul-Index": "0"})
    async with running(consul.agent(pace_s=0.5)) as seen:
        await seen.until(lambda site: site.health is CRITICAL)
        begun = now()
        with pytest.raises(TimeoutError):
            await seen.until(lambda site: False, within_s=10)
    assert len(consul.seen) <= 2 + (now() - begun) / 0.5


async def test_a_wake_without_a_change_is_no_change() -> None:
    consul = ScriptedConsul()
    await consul.say(an_entry())
    async with running(consul.agent(wait_s=5)) as seen:
        await seen.healthy()
        with pytest.raises(TimeoutError):
            await seen.until(lambda site: False, within_s=60)
    assert len(consul.seen) > 10
    assert len(seen.views) == 2


# -- whose failure it is ------------------------------------------------------------------------------------------


async def test_a_datacenter_that_is_away_makes_its_sites_unreachable_and_us_not_unready() -> None:
    consul = ScriptedConsul()
    await consul.say(an_entry())
    async with running(consul.agent()) as seen:
        await seen.healthy()
        consul.fails = lambda request: httpx2.Response(500, text="No path to datacenter")
        await consul.hang_up()
        begun = now()
        site = await seen.until(lambda site: site.health is UNREACHABLE)
        assert now() - begun == pytest.approx(10, abs=1)
        assert "dc2 does not answer" in site.health_reason and "No path to datacenter" in site.health_reason
        assert site.country == "FR"
        await seen.registry.ready()
        consul.fails = lambda request: None
        await seen.healthy()


async def test_a_datacenter_that_is_silent_is_told_from_an_agent_that_is() -> None:
    consul = ScriptedConsul()
    await consul.say(an_entry())
    await consul.say(an_entry(site="prague", country="CZ"), dc="dc1")
    sites = ListedSite(name="lyon", datacenter="dc2"), ListedSite(name="prague", datacenter="dc1")
    async with running(consul.agent(wait_s=20), *sites) as seen:
        await seen.healthy()
        consul.is_silent_for = lambda request: request.url.params.get("dc") == "dc2"
        await consul.hang_up()
        lyon = await seen.until(lambda site: site.health is UNREACHABLE, within_s=60)
        assert "is silent" in lyon.health_reason
        assert seen.views[-1][1].health is PASSING


async def test_while_our_agent_is_away_sites_keep_their_last_known_health_and_ready_names_it() -> None:
    consul = ScriptedConsul()
    await consul.say(an_entry())

    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("connection refused")

    async with running(consul.agent(last_known_s=600)) as seen:
        await seen.healthy()
        consul.fails = refuse
        await consul.hang_up()
        with pytest.raises(TimeoutError):
            await seen.until(lambda site: site.health is not PASSING, within_s=500)
        with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:8500.*connection refused"):
            await seen.registry.ready()
        site = await seen.until(lambda site: site.health is UNREACHABLE, within_s=200)
        assert "too old" in site.health_reason
        consul.fails = lambda request: None
        assert (await seen.healthy()).country == "FR"
        await seen.registry.ready()


async def test_pauses_between_tries_grow_and_differ() -> None:
    consul = ScriptedConsul()
    at: list[float] = []

    def refuse(request: httpx2.Request) -> httpx2.Response:
        at.append(now())
        raise httpx2.ConnectError("connection refused")

    consul.fails = refuse
    async with running(consul.agent(retry_first_s=1, retry_most_s=8)) as seen:
        with pytest.raises(TimeoutError):
            await seen.until(lambda site: False, within_s=120)
    pauses = [after - before for before, after in itertools.pairwise(at)]
    assert 0.5 <= pauses[0] <= 1 and 1 <= pauses[1] <= 2 and 2 <= pauses[2] <= 4
    assert all(4 <= pause <= 8 for pause in pauses[3:])
    assert len({round(pause, 3) for pause in pauses[3:]}) > 3


async def test_a_token_that_is_refused_is_our_mistake_and_says_so() -> None:
    consul = ScriptedConsul()
    consul.fails = lambda request: httpx2.Response(403, text="ACL not found")
    async with running(consul.agent(token="wrong")) as seen:
        site = await seen.until(lambda site: site.health is MISCONFIGURED)
        assert "ACL not found" in site.health_reason and "wrong" not in site.health_reason
        with pytest.raises(Misconfigured, match="ACL token"):
            await seen.registry.ready()
        await consul.say(an_entry())
        consul.fails = lambda request: None
        await seen.healthy()


async def test_one_datacenter_that_refuses_our_token_does_not_make_us_unready() -> None:
    consul = ScriptedConsul()
    await consul.say(an_entry(site="prague", country="CZ"), dc="dc1")
    refusal = httpx2.Response(403, text="ACL not found")
    consul.fails = lambda request: refusal if request.url.params.get("dc") == "dc2" else None
    sites = ListedSite(name="lyon", datacenter="dc2"), ListedSite(name="prague", datacenter="dc1")
    async with running(consul.agent(), *sites) as seen:
        await seen.until(lambda site: site.health is MISCONFIGURED)
        await seen.until(lambda site: seen.views[-1][1].health is PASSING)
        await seen.registry.ready()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx2.Response(200, text="<html>", headers={"X-Consul-Index": "3"}), "cannot be read"),
        (httpx2.Response(200, text="[]"), "cannot be read"),
        (httpx2.Response(200, text="[]", headers={"X-Consul-Index": "many"}), "cannot be read"),
        (httpx2.Response(200, content=b"\xff\xfe", headers={"X-Consul-Index": "3"}), "cannot be read"),
        (httpx2.Response(200, text=" " * 5000, headers={"X-Consul-Index": "3"}), "more than 2048 bytes"),
        (httpx2.Response(429, text="slow down"), "slow down"),
        (httpx2.Response(301, text="", headers={"Location": "http://198.51.100.9/"}), "cannot be read"),
    ],
)
async def test_an_answer_that_is_none_is_tried_again(answer: httpx2.Response, words: str) -> None:
    consul = ScriptedConsul()
    await consul.say(an_entry())
    consul.fails = lambda request: httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)
    async with running(consul.agent(answer_limit_bytes=2048)) as seen:
        site = await seen.until(lambda site: words in site.health_reason)
        assert site.health is UNREACHABLE
        consul.fails = lambda request: None
        await seen.healthy()
    assert {request.url.host for request in consul.seen} == {"127.0.0.1"}


# -- what Consul says ---------------------------------------------------------------------------------------------


async def test_before_consul_was_heard_sites_are_unreachable_and_we_are_not_ready() -> None:
    consul = ScriptedConsul()
    async with running(consul.agent()) as seen:
        site = await seen.until(lambda site: True)
        assert (site.name, site.health) == ("lyon", UNREACHABLE)
        await seen.until(lambda site: site.health is CRITICAL)
        await seen.registry.ready()


async def test_a_site_that_registers_for_the_first_time_need_not_wait() -> None:
    consul = ScriptedConsul()
    async with running(consul.agent()) as seen:
        await seen.until(lambda site: "no service serai-site" in site.health_reason)
        await consul.say(an_entry())
        begun = now()
        await seen.healthy()
        assert now() - begun < 1


async def test_a_check_that_flips_is_damped() -> None:
    consul = ScriptedConsul()
    await consul.say(an_entry())
    async with running(consul.agent()) as seen:
        await seen.healthy()
        for status in ("critical", "passing") * 3:
            await consul.say(an_entry(status))
            with pytest.raises(TimeoutError):
                await seen.until(lambda site: False, within_s=4)
        shown = [view[0].health for view in seen.views[1:]]
        assert shown[0] is PASSING and set(shown[1:]) == {CRITICAL}
        assert seen.views[-1][0].health_reason == "its checks pass again, but not for long enough yet"
        begun = now()
        await seen.healthy()
        assert now() - begun == pytest.approx(20 - 4, abs=1)


async def test_a_bad_value_makes_one_site_misconfigured_and_stops_no_other() -> None:
    consul = ScriptedConsul()
    sites = ListedSite(name="lyon", datacenter="dc2"), ListedSite(name="bari", datacenter="dc2")
    bari = an_entry(site="bari", country="IT")
    await consul.say(an_entry(), bari)
    async with running(consul.agent(), *sites) as seen:
        await seen.healthy()
        await consul.say(an_entry(carbon_g_per_kwh="low"), bari)
        lyon = await seen.until(lambda site: site.health is MISCONFIGURED)
        assert "`carbon_g_per_kwh` = 'low': write a number" in lyon.health_reason
        assert lyon.address == "https://nomad.lyon.example:4646"
        assert seen.views[-1][1].health is PASSING
        await consul.say(an_entry(carbon_g_per_kwh="50"), bari)
        assert (await seen.healthy()).carbon_g_per_kwh == 50


async def test_names_and_addresses_that_consul_invents_never_appear() -> None:
    consul = ScriptedConsul()
    lyon = ListedSite(name="lyon", datacenter="dc2", allowed_hosts=(".lyon.example",))
    await consul.say(an_entry())
    async with running(consul.agent(), lyon) as seen:
        await seen.healthy()
        forged = [an_entry(site=f"mallory-{n}") for n in range(2000)]
        await consul.say(*forged, an_entry(nomad_address="https://collector.example:4646"))
        site = await seen.until(lambda site: site.health is MISCONFIGURED)
        assert "collector.example" in site.health_reason
        assert {site.address for view in seen.views for site in view} <= {"", "https://nomad.lyon.example:4646"}
        assert {site.name for view in seen.views for site in view} == {"lyon"}


async def test_a_site_listed_twice_is_refused_at_start() -> None:
    twice = ListedSite(name="lyon", datacenter="dc2"), ListedSite(name="lyon", datacenter="dc1")
    with pytest.raises(Misconfigured, match="twice"):
        async with running(ScriptedConsul().agent(), *twice):
            pass
