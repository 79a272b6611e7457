"""Several sites on one real cluster, told apart by datacenter and node pool, over as few connections as were agreed."""

from collections.abc import AsyncIterator, Iterator

import pytest

from services.monitor.capacity import site_capacity
from tests.builders import a_site
from tests.ports.engine.connections import MOST, asked_for_much_at_a_time
from tests.ports.engine.site import SiteUnderTest, an_order, of_address
from tests.real_nomad import RealNomad, real_nomad

pytestmark = pytest.mark.nomad

SITES = {
    "prague": {"datacenters": ("dc1",)},
    "brno": {"datacenters": ("dc2",)},
    "brno-gpu": {"datacenters": ("dc2",), "node_pool": "gpu"},
}
NODES = {"prague": "one", "brno": "two", "brno-gpu": "three"}
LIMIT = MOST + 2
"""What the cluster allows here: all of ours, and two of its operator."""


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


async def test_nomad_never_says_that_we_have_too_many_connections(region: RealNomad) -> None:
    await asked_for_much_at_a_time(region.address)
