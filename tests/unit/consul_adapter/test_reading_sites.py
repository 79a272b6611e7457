"""What a site says of itself: read strictly, refused in words that its operator understands, never an exception."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.adapters.consul import addresses
from shared.adapters.consul.judging import judge, strangers, unheard
from shared.adapters.consul.meta import BadMeta, site_of
from shared.adapters.consul.reading import Instance, instances_of
from shared.adapters.consul.settings import ListedSite
from shared.site import SiteHealth
from tests.examples import examples

pytestmark = pytest.mark.fast

META = {
    "site": "lyon", "country": "FR", "vos": "vo.climate.example, vo.bio.example", "nomad_address": "https://nomad.lyon.example:4646",
    "nomad_region": "lyon", "nomad_datacenters": "dc1,dc2", "nomad_node_pool": "batch", "hardware": "x86_64,ssd",
    "mhz_per_core": "2400", "carbon_g_per_kwh": "55.5", "cost_per_core_hour": "0.03",
}  # fmt: skip


def listed(**more: Any) -> ListedSite:
    return ListedSite.model_validate({"name": "lyon", "datacenter": "dc2"} | more)


def an_instance(meta: dict[str, str] | None = None, **more: Any) -> Instance:
    fields: dict[str, Any] = {
        "id": "serai-site-1", "node": "n1", "address": "192.0.2.7", "port": 4646, "tags": frozenset(),
        "meta": META if meta is None else meta, "health": SiteHealth.PASSING,
    }  # fmt: skip
    return Instance(**(fields | more))


def an_entry(status: str = "passing", **service: Any) -> dict[str, Any]:
    return {
        "Node": {"Node": "n1", "Address": "192.0.2.1"},
        "Service": {"ID": "serai-site-1", "Service": "serai-site", "Address": "192.0.2.7", "Port": 4646, "Tags": None,
                    "Meta": META} | service,
        "Checks": [{"Name": "Serf", "Status": "passing"}, {"Name": "Nomad", "Status": status, "Output": "no\nleader"}],
    }  # fmt: skip


# -- the site -----------------------------------------------------------------------------------------------------


def test_a_site_is_what_its_service_says() -> None:
    site = site_of(listed(), an_instance())
    assert (site.name, site.cluster, site.country, site.address) == (
        "lyon",
        "lyon",
        "FR",
        "https://nomad.lyon.example:4646",
    )
    assert site.vos == ("vo.climate.example", "vo.bio.example")
    assert (site.region, site.datacenters, site.node_pool) == ("lyon", ("dc1", "dc2"), "batch")
    assert (site.hardware, site.mhz_per_core, site.carbon_g_per_kwh, site.cost_per_core_hour) == (
        ("x86_64", "ssd"), 2400, 55.5, 0.03,
    )  # fmt: skip


def test_what_settings_say_wins_over_what_the_site_says() -> None:
    told = {"country": "BE", "vos": ("vo.bio.example",), "address": "https://10.1.2.3:4646", "carbon_g_per_kwh": 400}
    site = site_of(listed(cluster="west", **told), an_instance())
    assert (site.cluster, site.country, site.vos, site.address, site.carbon_g_per_kwh) == (
        "west", "BE", ("vo.bio.example",), "https://10.1.2.3:4646", 400,
    )  # fmt: skip


def test_a_plain_nomad_service_needs_its_facts_in_settings_only() -> None:
    plain = listed(service="nomad", country="FR", vos=("vo.bio.example",), region="lyon")
    site = site_of(plain, an_instance({"external-source": "nomad"}, tags=frozenset({"http"})))
    assert (site.address, site.region) == ("https://192.0.2.7:4646", "lyon")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("country", "France", "two capital letters"),
        ("country", None, "lacks the meta `country`"),
        ("vos", "", "names of VOs"),
        ("vos", "vo.a,,vo.b", "names of VOs"),
        ("vos", "vo a", "names of VOs"),
        ("vos", ",".join(f"vo{n}" for n in range(65)), "at most 64"),
        ("carbon_g_per_kwh", "12,5", "a number from 0 to 5000, as 412.5"),
        ("carbon_g_per_kwh", "nan", "a number"),
        ("carbon_g_per_kwh", "1e9", "a number"),
        ("cost_per_core_hour", "-1", "a number"),
        ("mhz_per_core", "0", "a number from 1 to 100000"),
        ("mhz_per_core", "2.5", "a whole number"),
        ("nomad_region", "lyon/../prague", "the name of a Nomad region"),
        ("hardware", "x86_64;rm", "words separated by commas"),
        ("nomad_address", "nomad.lyon.example", "https://host:port"),
        ("nomad_address", "https://user:secret@nomad.lyon.example:4646", "https://host:port"),
        ("nomad_address", "https://nomad.lyon.example:4646/v1/", "https://host:port"),
        ("nomad_address", "http://nomad.lyon.example:4646", "without TLS: use https"),
        ("nomad_address", "https://0x7f000001:4646", "https://host:port"),
        ("nomad_address", "https://nomad.lyon.example:99999", "https://host:port"),
    ],
)
def test_a_bad_value_is_refused_in_words(key: str, value: str | None, words: str) -> None:
    meta = {name: text for name, text in (META | {key: value}).items() if text is not None}
    with pytest.raises(BadMeta, match="service serai-site on node n1 ") as refused:
        site_of(listed(), an_instance(meta))
    assert words in str(refused.value)


def test_words_of_others_cannot_break_a_line_or_fill_it() -> None:
    meta = META | {"country": "\x1b[2J\n" + "x" * 500}
    with pytest.raises(BadMeta) as refused:
        site_of(listed(), an_instance(meta, node="n\n2"))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


def test_an_address_counts_only_where_settings_allow_it() -> None:
    at_home = listed(allowed_hosts=("192.0.2.0/24", ".lyon.example"))
    assert site_of(at_home, an_instance()).address == "https://nomad.lyon.example:4646"
    with pytest.raises(BadMeta, match="not in the site's `allowed_hosts`"):
        site_of(at_home, an_instance(META | {"nomad_address": "https://collector.example:4646"}))
    with pytest.raises(BadMeta, match="not in the site's `allowed_hosts`"):
        site_of(at_home, an_instance(META | {"nomad_address": "https://evil-lyon.example:4646"}))


def test_plain_http_must_be_allowed_and_bound_to_hosts() -> None:
    meta = META | {"nomad_address": "http://127.0.0.1:4646"}
    local = listed(plain_http=True, allowed_hosts=("127.0.0.0/8",))
    assert site_of(local, an_instance(meta)).address == "http://127.0.0.1:4646"
    with pytest.raises(ValueError, match="plain_http needs allowed_hosts"):
        listed(plain_http=True)


# -- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "https://", "ftp://a", "https://a b", "https://a#b", "https://a?b", "https://[::g]:1",
                                 "https://1.2.3:4", "https://2130706433", "https://ex\u0430mple.org", "https://a..b",
                                 "https://[fe80::1%25eth0]:1", "https://-a.example"])  # fmt: skip
def test_what_is_no_plain_address_is_none(url: str) -> None:
    assert addresses.place_of(url) is None


def test_addresses_are_compared_as_addresses() -> None:
    assert addresses.place_of("https://[2001:DB8::0:1]:4646/") == addresses.Place("https", "2001:db8::1", 4646)
    assert addresses.place_of("https://Nomad.Example").url == "https://nomad.example:443"  # type: ignore[union-attr]
    assert addresses.allowed("2001:db8::1", ["2001:db8::/32"])
    assert not addresses.allowed("10.0.0.1", ["192.0.2.0/24", "10.0.0.2", "example.org", ".example.org"])
    assert not addresses.allowed("127.0.0.1.example", ["127.0.0.0/8"])


@given(st.text() | st.from_regex(r"https?://.*", fullmatch=True))
def test_any_text_is_a_place_or_none(text: str) -> None:
    place = addresses.place_of(text)
    assert place is None or addresses.place_of(place.url) == place


# -- Consul's JSON ------------------------------------------------------------------------------------------------


def test_the_worst_check_counts_and_its_words_are_kept() -> None:
    (instance,) = instances_of([an_entry("critical")])
    assert (instance.health, instance.says) == (SiteHealth.CRITICAL, "Nomad: no leader")
    (instance,) = instances_of([an_entry("something new")])
    assert instance.health is SiteHealth.CRITICAL
    (instance,) = instances_of([an_entry(Address="")])
    assert (instance.address, instance.health) == ("192.0.2.1", SiteHealth.PASSING)


KEYS = ("Node", "Service", "Checks", "ID", "Port", "Meta", "Tags", "Address", "Status", "Output", "site", "vos")
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
    max_leaves=30,
)


@given(st.lists(JSON, max_size=5))
@examples(60)
def test_no_answer_whatever_stops_us(entries: list[Any]) -> None:
    instances = instances_of(entries)
    assert judge(listed(), instances).health in set(SiteHealth)
    strangers([listed()], instances)


@given(st.dictionaries(st.sampled_from(sorted(META)), st.text(max_size=40)), st.text(), st.text(), st.integers())
def test_no_meta_whatever_stops_us(meta: dict[str, str], node: str, address: str, port: int) -> None:
    told = an_instance(META | meta | {"site": "lyon"}, node=node, address=address, port=port)
    judged = judge(listed(allowed_hosts=(".lyon.example",)), [told])
    assert (judged.site is None) == bool(judged.wrong)
    assert judged.wrong.isprintable()
    if judged.site is not None:
        place = addresses.place_of(judged.site.address)
        assert place is not None and place.scheme == "https" and place.host.endswith(".lyon.example")


# -- several copies -----------------------------------------------------------------------------------------------


def server(number: int, health: SiteHealth, **meta: str) -> Instance:
    meta = META | {"nomad_address": f"https://s{number}.lyon.example:4646"} | meta
    return an_instance(meta, id=f"s{number}", health=health, says=f"words of s{number}")


def test_one_healthy_server_is_enough() -> None:
    judged = judge(
        listed(), [server(1, SiteHealth.CRITICAL), server(2, SiteHealth.PASSING), server(3, SiteHealth.WARNING)]
    )
    assert judged.health is SiteHealth.PASSING
    assert judged.site is not None and judged.site.address == "https://s2.lyon.example:4646"


def test_the_address_in_use_is_kept_while_it_is_as_good_as_any() -> None:
    servers = [server(1, SiteHealth.PASSING), server(2, SiteHealth.PASSING)]
    judged = judge(listed(), servers, present="https://s2.lyon.example:4646")
    assert judged.site is not None and judged.site.address == "https://s2.lyon.example:4646"


def test_a_forged_copy_is_ignored_beside_a_true_one() -> None:
    at_home = listed(allowed_hosts=(".lyon.example",))
    forged = server(0, SiteHealth.PASSING, nomad_address="https://collector.example:4646")
    judged = judge(at_home, [forged, server(1, SiteHealth.CRITICAL)])
    assert judged.health is SiteHealth.CRITICAL
    assert judged.site is not None and judged.site.address == "https://s1.lyon.example:4646"
    assert judged.ignored and "collector.example" in judged.ignored[0]


def test_where_every_copy_is_bad_the_site_is_misconfigured() -> None:
    judged = judge(listed(), [server(1, SiteHealth.PASSING, country="France")])
    assert judged.site is None
    assert "`country` = 'France'" in judged.wrong


def test_names_that_nobody_listed_are_told_and_do_not_count() -> None:
    others = [an_instance(META | {"site": "mallory"}), an_instance(META | {"site": "\x1b[31m"}), an_instance()]
    assert strangers([listed()], others) == ("[31m", "mallory")
    judged = judge(listed(), others[:2])
    assert (judged.health, judged.site) == (SiteHealth.CRITICAL, None)
    assert "no service serai-site" in judged.reason


def test_of_a_plain_nomad_only_copies_with_the_tags_count() -> None:
    plain = listed(service="nomad", tags=("http", "nomad-region=lyon"), country="FR", vos=("vo.bio.example",))
    http, rpc = frozenset({"http", "nomad-region=lyon"}), frozenset({"rpc", "nomad-region=lyon"})
    assert judge(plain, [an_instance({}, tags=http)]).site is not None
    assert judge(plain, [an_instance({}, tags=rpc)]).site is None
    assert judge(plain, [an_instance({}, tags=frozenset({"http", "nomad-region=bari"}))]).site is None


def test_a_site_that_was_never_heard_of_is_unreachable_with_what_settings_say() -> None:
    site = unheard(listed(country="FR", region="lyon"))
    assert (site.health, site.country, site.vos, site.region) == (SiteHealth.UNREACHABLE, "FR", (), "lyon")
