"""Several sites on one real cluster, told apart by datacenter and node pool, and the connections it is asked for."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from services.monitor.capacity import site_capacity
from shared.engine import Heartbeat, Presence
from shared.ids import new_job_id
from tests.between import between
from tests.builders import a_site
from tests.ports.engine.site import SiteUnderTest, an_order, of_address
from tests.real_nomad import RealNomad, real_nomad

pytestmark = pytest.mark.nomad

SITES = {
    "prague": {"datacenters": ("dc1",)},
    "brno": {"datacenters": ("dc2",)},
    "brno-gpu": {"datacenters": ("dc2",), "node_pool": "gpu"},
}
NODES = {"prague": "one", "brno": "two", "brno-gpu": "three"}
CONNECTIONS = 10
"""The default of ClusterSettings for each port."""
LIMIT = 2 * CONNECTIONS + 2
"""What the cluster allows here: both ports' calls, the stream while it is opened, and one of ours by hand."""


@pytest.fixture(scope="module")
def region() -> Iterator[RealNomad]:
    """Three nodes: one datacenter, another, and a node pool in the other."""
    each = {"two": {"datacenter": "dc2"}, "three": {"datacenter": "dc2", "client": {"node_pool": "gpu"}}}
    limits = {"limits": {"http_max_conns_per_client": LIMIT}}
    with real_nomad(clients=tuple(NODES.values()), each=each, server=limits) as found:
        yield found


@pytest.fixture
async def cluster(region: RealNomad) -> AsyncIterator[SiteUnderTest]:
    async with of_address(region.address) as found:
        yield found


@pytest.mark.parametrize("name", SITES)
async def test_work_for_a_site_runs_on_its_nodes(cluster: SiteUnderTest, name: str) -> None:
    orders = [await cluster.submitted(an_order(at=SITES[name] | {"name": name})) for _ in range(3)]
    assert {(await cluster.ended(order)).node_name for order in orders} == {NODES[name]}


async def test_each_site_offers_its_own_nodes(cluster: SiteUnderTest) -> None:
    nodes = (await cluster.watch.listing()).nodes
    offers = {name: site_capacity(a_site(name, **facts), nodes) for name, facts in SITES.items()}
    assert {name: [node.name for node in offer.nodes] for name, offer in offers.items()} == {
        name: [node] for name, node in NODES.items()
    }


async def test_a_cluster_is_never_asked_over_more_connections_than_were_agreed(region: RealNomad) -> None:
    """A hundred calls at a time at each port beside the stream: 10 connections each, and Nomad never says 429."""
    async with (
        between(region.address) as proxy,
        of_address(proxy.address, page_size=1000) as site,
        aclosing(site.watch.stream(0)) as stream,  # type: ignore[type-var]
    ):
        assert await anext(stream) == Heartbeat()
        asked = (site.watch.presence(f"{new_job_id()}-001", "default") for _ in range(100))
        assert set(await asyncio.gather(*asked)) == {Presence.ABSENT}
        assert proxy.most <= CONNECTIONS + 1
        mock = {"metadata": {"serai.mock": "run_for=0s"}}
        await asyncio.gather(*(site.submitted(an_order(**mock)) for _ in range(100)))
        assert proxy.most <= 2 * CONNECTIONS + 1
        assert proxy.connections <= 2 * CONNECTIONS + 1, "they are kept and used again"
