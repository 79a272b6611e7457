"""The file of clusters and sites, without and with Consul; tokens in files; clusters that move."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.errors import Misconfigured, Unavailable
from shared.processes.sites import check_unmoved, locate
from shared.processes.sites_file import ConsulSitesFile, ListedCluster, SitesFile, read_sites_file
from shared.site import Site
from tests.builders import a_site

pytestmark = pytest.mark.fast

ADDRESS = "https://nomad.lyon.example:4646"
CLUSTER = {"name": "lyon", "address": ADDRESS, "region": "lyon"}
SITE = {"name": "lyon", "cluster": "lyon", "country": "FR", "vos": ["vo.bio.example"]}
IN_CONSUL = {"name": "lyon", "datacenter": "dc2"}
GUIDE = Path(__file__).parents[3] / "docs"

Kind = type[SitesFile] | type[ConsulSitesFile]


def a_file(folder: Path, content: Any) -> Path:
    path = folder / "sites.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def refusal(folder: Path, content: Any, kind: Kind) -> str:
    with pytest.raises(Misconfigured) as caught:
        read_sites_file(a_file(folder, content), kind)
    return caught.value.what


# -- both forms ---------------------------------------------------------------------------------------------------


def test_without_consul_every_fact_stands_in_the_file(tmp_path: Path) -> None:
    (site,) = read_sites_file(a_file(tmp_path, {"clusters": [CLUSTER], "sites": [SITE]}), SitesFile).site_list()
    assert (site.name, site.address, site.region, site.vos) == ("lyon", ADDRESS, "lyon", ("vo.bio.example",))


def test_with_consul_address_and_facts_may_be_left_to_it(tmp_path: Path) -> None:
    content = {"clusters": [{"name": "lyon"}], "sites": [IN_CONSUL]}
    listed = read_sites_file(a_file(tmp_path, content), ConsulSitesFile)
    assert listed.clusters[0].opened(ADDRESS).address == ADDRESS
    assert listed.sites[0].service == "serai-site" and listed.sites[0].vos is None


def test_a_cluster_without_an_address_needs_a_consul(tmp_path: Path) -> None:
    listed = read_sites_file(a_file(tmp_path, {"clusters": [{"name": "lyon"}], "sites": [SITE]}), SitesFile)
    with pytest.raises(Misconfigured, match="cluster lyon: give its address, or name a Consul that knows it"):
        listed.site_list()


@pytest.mark.parametrize("kind", [SitesFile, ConsulSitesFile])
def test_a_file_that_was_not_named_is_asked_for_by_its_variable(kind: Kind) -> None:
    with pytest.raises(Misconfigured, match="SERAI_SITES is not set"):
        read_sites_file(None, kind)


@pytest.mark.parametrize("kind", [SitesFile, ConsulSitesFile])
def test_a_file_that_is_not_there_is_named(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"none.yaml: No such file"):
        read_sites_file(tmp_path / "none.yaml", kind)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "sites.yaml:1: this is not clusters and sites"),
        ("- a", "sites.yaml:1: this is not clusters and sites"),
        ("clusters: [", "not YAML"),
        ({"clusters": [CLUSTER]}, "the field 'sites' is required"),
        ({"clusters": [], "sites": []}, "name at least one cluster and one site"),
        ({"clusters": [CLUSTER | {"adress": "x"}], "sites": []}, "'adress' is not known; did you mean 'address'?"),
        ({"clusters": [CLUSTER | {"address": "nomad:4646"}], "sites": []}, "address: 'nomad:4646' does not have the"),
        (
            {"clusters": [CLUSTER | {"token": "a", "token_file": "b"}], "sites": []},
            "give token or token_file, not both",
        ),
    ],
)
@pytest.mark.parametrize("kind", [SitesFile, ConsulSitesFile])
def test_a_wrong_file_is_told_with_its_place(tmp_path: Path, kind: Kind, content: Any, words: str) -> None:
    told = refusal(tmp_path, content, kind)
    assert told.startswith(f"{tmp_path}/sites.yaml") and words in told


@pytest.mark.parametrize(("kind", "site"), [(SitesFile, SITE), (ConsulSitesFile, IN_CONSUL)])
def test_names_must_agree_in_both_forms(tmp_path: Path, kind: Kind, site: dict[str, Any]) -> None:
    elsewhere = {"clusters": [CLUSTER], "sites": [site | {"cluster": "bari"}]}
    assert "site lyon: there is no cluster 'bari'" in refusal(tmp_path, elsewhere, kind)
    assert "a name stands there twice" in refusal(tmp_path, {"clusters": [CLUSTER], "sites": [site, site]}, kind)
    assert "a name stands there twice" in refusal(tmp_path, {"clusters": [CLUSTER] * 2, "sites": [site]}, kind)


HERE = SITE | {"datacenters": ["dc1"], "node_pool": "default"}
IN_CONSUL_HERE = IN_CONSUL | {"cluster": "lyon", "datacenters": ["dc1"], "node_pool": "default"}


@pytest.mark.parametrize(("kind", "site"), [(SitesFile, HERE), (ConsulSitesFile, IN_CONSUL_HERE)])
@pytest.mark.parametrize(
    ("place", "fits"),
    [
        ({"datacenters": ["dc2"]}, True),
        ({"node_pool": "gpu"}, True),
        ({}, False),
        ({"datacenters": ["dc*"]}, False),
        ({"node_pool": "all"}, False),
    ],
)
def test_sites_of_one_cluster_must_not_offer_the_same_nodes(
    tmp_path: Path, kind: Kind, site: dict[str, Any], place: dict[str, Any], fits: bool
) -> None:
    content = {"clusters": [CLUSTER], "sites": [site, site | {"name": "lyon-2"} | place]}
    if fits:
        assert len(read_sites_file(a_file(tmp_path, content), kind).sites) == 2
    else:
        told = refusal(tmp_path, content, kind)
        assert "sites lyon and lyon-2 offer the same nodes" in told and "`datacenters` or `node_pool`" in told


def test_the_form_of_one_is_refused_by_the_other_with_what_is_missing(tmp_path: Path) -> None:
    assert "'datacenter' is required" in refusal(tmp_path, {"clusters": [CLUSTER], "sites": [SITE]}, ConsulSitesFile)
    assert "'country' is required" in refusal(tmp_path, {"clusters": [CLUSTER], "sites": [IN_CONSUL]}, SitesFile)


def test_plain_http_from_consul_needs_to_be_bound_to_hosts(tmp_path: Path) -> None:
    told = refusal(tmp_path, {"clusters": [CLUSTER], "sites": [IN_CONSUL | {"plain_http": True}]}, ConsulSitesFile)
    assert told.endswith("site lyon: plain_http needs allowed_hosts, or Consul could send our token anywhere")


@pytest.mark.parametrize(
    ("page", "kind"), [("processes.md", SitesFile), ("processes.md", ConsulSitesFile), ("consul.md", ConsulSitesFile)]
)
def test_the_examples_of_the_guides_are_read(tmp_path: Path, page: str, kind: Kind) -> None:
    blocks = [part.split("```")[0] for part in (GUIDE / page).read_text().split("```yaml\n")[1:]]
    files = [
        block for block in blocks if "clusters:" in block and ("datacenter:" in block) == (kind is ConsulSitesFile)
    ]
    assert len(files) == 1
    listed = read_sites_file(a_file(tmp_path, files[0]), kind)
    assert {site.cluster or site.name for site in listed.sites} == {cluster.name for cluster in listed.clusters}


# -- tokens -------------------------------------------------------------------------------------------------------


def test_a_token_is_read_from_its_file_without_the_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s.123\n")
    cluster = ListedCluster(name="lyon", address=ADDRESS, token_file=tmp_path / "token")
    assert cluster.opened().token.get_secret_value() == "s.123"


def test_a_token_of_the_wrong_kind_is_refused_without_being_shown(tmp_path: Path) -> None:
    content = {"clusters": [CLUSTER | {"token": 987654321}], "sites": [SITE]}
    told = refusal(tmp_path, content, SitesFile)
    assert "token: " in told and "987654321" not in told


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b" \n", "is empty"), (b"\xff", "is not text")])
def test_a_token_file_without_a_token_is_told_with_its_cluster(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Misconfigured, match=f"cluster lyon: token_file .*/token: {words}"):
        ListedCluster(name="lyon", address=ADDRESS, token_file=path).opened()


# -- where clusters are -------------------------------------------------------------------------------------------

LEFT_TO_CONSUL = (ListedCluster(name="lyon"), ListedCluster(name="bari", address="https://bari.example:4646"))


def in_lyon(*addresses: str) -> tuple[Site, ...]:
    return tuple(a_site(f"s{number}", cluster="lyon", address=address) for number, address in enumerate(addresses))


def test_a_cluster_is_where_the_file_says_or_else_where_its_sites_are() -> None:
    assert locate(LEFT_TO_CONSUL, in_lyon(ADDRESS)) == {"lyon": ADDRESS, "bari": "https://bari.example:4646"}
    assert locate(LEFT_TO_CONSUL, in_lyon("")) == {"bari": "https://bari.example:4646"}


def test_no_cluster_at_all_is_waited_for() -> None:
    with pytest.raises(Unavailable, match="Consul knows the address of none of the listed sites"):
        locate(LEFT_TO_CONSUL[:1], in_lyon(""))


def test_a_cluster_that_moved_takes_a_new_start() -> None:
    with pytest.raises(RuntimeError, match=f"Nomad of lyon is at https://new:1 now, not at {ADDRESS}: start anew"):
        check_unmoved(LEFT_TO_CONSUL, {"lyon": ADDRESS}, in_lyon("https://new:1"))


def test_a_cluster_that_had_no_address_at_the_start_takes_a_new_start() -> None:
    with pytest.raises(RuntimeError, match=f"Nomad of lyon is known now, at {ADDRESS}: start anew"):
        check_unmoved(LEFT_TO_CONSUL, {}, in_lyon(ADDRESS))


def test_a_cluster_stays_while_one_of_its_sites_is_where_it_was_and_when_all_are_gone() -> None:
    check_unmoved(LEFT_TO_CONSUL, {"lyon": ADDRESS}, in_lyon("https://second:1", ADDRESS))
    check_unmoved(LEFT_TO_CONSUL, {"lyon": ADDRESS}, in_lyon(""))
    check_unmoved(LEFT_TO_CONSUL, {"lyon": ADDRESS, "bari": "x"}, ())
