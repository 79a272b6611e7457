"""The policies that we ask of sites: enough, no more, and what is said where one line of them is missing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from shared.adapters.nomad import NomadCluster
from shared.adapters.nomad.policies import (
    DEREGISTER,
    FINER_SINCE,
    MONITOR_IN_OURS,
    REGISTER,
    SCHEDULER_IN_OURS,
    SECRETS_IN_OURS,
    Role,
    policy,
)
from shared.engine import AllocationSeen, AttemptOrder, Closing, Heartbeat, Submission, Submitted
from shared.errors import Misconfigured
from tests.ports.engine.site import SiteUnderTest, a_script, an_order, of_region, opened, trusting
from tests.real_nomad import RealNomad, real_nomad

pytestmark = pytest.mark.nomad

OURS, THEIRS = "vo-climate-example", "somebody-else"
Call = Callable[[NomadCluster, AllocationSeen], Awaitable[object]]


@pytest.fixture(scope="module")
def region() -> Iterator[RealNomad]:
    """A site that serves one VO and has work of others."""
    with real_nomad(name="prague", guarded=True, namespaces=(OURS, THEIRS)) as found:
        for role in Role:
            found.operator.apply_policy(role, found.operator.policy_for(role, (OURS,)))
        yield found


@pytest.fixture
async def site(region: RealNomad) -> AsyncIterator[SiteUnderTest]:
    async with of_region(region, first_heartbeat_s=1.0) as found:
        yield found


@pytest.fixture
async def ended(site: SiteUnderTest) -> AllocationSeen:
    """An attempt that has run and written something."""
    order = await site.submitted(replace(a_script("echo hello; echo 42 > answer"), namespace=OURS))
    return await site.ended(order)


@asynccontextmanager
async def holding(region: RealNomad, role: Role, without: str) -> AsyncIterator[NomadCluster]:
    """The adapter with a token of the role's policy less one capability."""
    rules = await asyncio.to_thread(region.operator.policy_for, role, (OURS,))
    less = "\n".join(line for line in rules.splitlines() if f'"{without}"' not in line)
    if without == "node:read":
        less = rules.partition("node {")[0]
    assert less != rules
    name = f"less-{without.replace(':', '-')}"
    await asyncio.to_thread(region.operator.apply_policy, name, less)
    token = await asyncio.to_thread(region.operator.make_token, name, name)
    cluster = opened(region.address, **trusting(region, role) | {"token": token, "first_heartbeat_s": 1.0})
    try:
        yield cluster
    finally:
        await cluster.aclose()


# -- enough -------------------------------------------------------------------------------------------------------


async def test_both_tokens_can_do_their_work(site: SiteUnderTest, ended: AllocationSeen) -> None:
    await site.engine.ready()
    await site.watch.ready()
    assert OURS in await site.engine.namespaces()
    assert (await site.watch.listing()).nodes
    assert await site.output(ended) == b"hello\n"
    assert await site.file(ended, "answer") == b"42\n"
    running = await site.submitted(replace(a_script("sleep 1000"), namespace=OURS))
    await site.reached(running, "running")
    assert await site.engine.close(running.attempt, OURS) is Closing.STOPPING
    await site.ended(running)
    nobody = an_order()
    assert await site.engine.close(nobody.attempt, OURS) is Closing.NEVER_RAN
    assert await site.engine.submit(replace(nobody, namespace=OURS)) == Submission(Submitted.CLOSED)


# -- no more ------------------------------------------------------------------------------------------------------


async def test_the_schedulers_token_reaches_no_namespace_but_those_of_our_vos(site: SiteUnderTest) -> None:
    for namespace in ("default", THEIRS):
        with pytest.raises(Misconfigured, match=f"register-job.* in namespace {namespace}"):
            await site.engine.submit(replace(an_order(), namespace=namespace))
    assert await site.engine.namespaces() == {OURS}


async def test_the_monitors_token_changes_nothing(region: RealNomad) -> None:
    cluster = opened(region.address, **trusting(region, Role.MONITOR))
    try:
        for call in (
            cluster.engine.submit(replace(an_order(), namespace=OURS)),
            cluster.engine.close(an_order().attempt, OURS),
        ):
            with pytest.raises(Misconfigured, match="register-job"):
                await call
    finally:
        await cluster.aclose()


async def test_the_schedulers_token_sees_no_logs_and_no_nodes(region: RealNomad, ended: AllocationSeen) -> None:
    cluster = opened(region.address, **trusting(region, Role.SCHEDULER) | {"first_heartbeat_s": 1.0})
    try:
        with pytest.raises(Misconfigured, match="read-fs"):
            await anext(cluster.watch.logs(ended.id, "main", "stdout"))
        with pytest.raises(Misconfigured, match="node:read"):
            await cluster.watch.listing()
        with pytest.raises(Misconfigured, match="node:read"):
            await anext(cluster.watch.stream(0))
    finally:
        await cluster.aclose()


# -- one line less ------------------------------------------------------------------------------------------------


async def _registers(cluster: NomadCluster, ended: AllocationSeen) -> object:
    return await cluster.engine.submit(replace(an_order(), namespace=OURS))


async def _reads_back(cluster: NomadCluster, ended: AllocationSeen) -> object:
    order = replace(an_order(), namespace=OURS)
    await cluster.engine.submit(order)
    return await cluster.engine.submit(order)


async def _stops(cluster: NomadCluster, ended: AllocationSeen) -> object:
    order = replace(a_script("sleep 5"), namespace=OURS)
    await cluster.engine.submit(order)
    return await cluster.engine.close(order.attempt, OURS)


def _secretive() -> AttemptOrder:
    """An order whose job names a secret."""
    secret = {"name": "key", "file": "key"}
    return replace(an_order(secrets=[secret]), namespace=OURS, secrets={"key": b"hush"})


async def _hands_secrets(cluster: NomadCluster, ended: AllocationSeen) -> object:
    return await cluster.engine.submit(_secretive())


async def _hands_them_again(cluster: NomadCluster, ended: AllocationSeen) -> object:
    order = _secretive()
    await cluster.engine.submit(order)
    return await cluster.engine.submit(replace(order, secrets={"key": b"other"}))


async def _lists_secrets(cluster: NomadCluster, ended: AllocationSeen) -> object:
    return await cluster.engine.kept_secrets()


async def _forgets(cluster: NomadCluster, ended: AllocationSeen) -> object:
    return await cluster.engine.forget(an_order().attempt, OURS)


async def _is_ready(cluster: NomadCluster, ended: AllocationSeen) -> object:
    return await cluster.engine.ready()


async def _lists(cluster: NomadCluster, ended: AllocationSeen) -> object:
    return await cluster.watch.listing()


async def _streams(cluster: NomadCluster, ended: AllocationSeen) -> object:
    return await anext(cluster.watch.stream(0))


async def _reads_logs(cluster: NomadCluster, ended: AllocationSeen) -> object:
    return await anext(cluster.watch.logs(ended.id, "main", "stdout"))


async def _reads_outputs(cluster: NomadCluster, ended: AllocationSeen) -> object:
    return await cluster.watch.file(ended.id, "main/local/answer", 100)


NEEDS: list[tuple[Role, str, Call]] = [
    (Role.SCHEDULER, "register-job", _registers),
    (Role.SCHEDULER, "read-job", _reads_back),
    (Role.SCHEDULER, "deregister-job", _stops),
    (Role.SCHEDULER, "list-jobs", _is_ready),
    (Role.SCHEDULER, "write", _hands_secrets),
    (Role.SCHEDULER, "read", _hands_them_again),
    (Role.SCHEDULER, "destroy", _forgets),
    (Role.MONITOR, "list-jobs", _lists),
    (Role.MONITOR, "list-jobs", _is_ready),
    (Role.MONITOR, "read-job", _streams),
    (Role.MONITOR, "node:read", _streams),
    (Role.MONITOR, "node:read", _lists),
    (Role.MONITOR, "read-fs", _reads_logs),
    (Role.MONITOR, "read-fs", _reads_outputs),
]


@pytest.mark.parametrize(("role", "capability", "call"), NEEDS)
async def test_what_is_missing_is_named(
    region: RealNomad, ended: AllocationSeen, role: Role, capability: str, call: Call
) -> None:
    if capability in (REGISTER, DEREGISTER) and region.operator.version() < FINER_SINCE:
        pytest.skip("this Nomad has one capability for both")
    async with holding(region, role, capability) as cluster:
        with pytest.raises(Misconfigured, match=capability) as denied:
            await call(cluster, ended)
        assert denied.value.code == "nomad_token"


async def test_a_token_for_our_namespaces_only_gets_no_stream_and_is_told_why(region: RealNomad) -> None:
    rules = policy(Role.MONITOR, (OURS,)).replace('namespace "*"', f'namespace "{THEIRS}"')
    await asyncio.to_thread(region.operator.apply_policy, "few", rules)
    token = await asyncio.to_thread(region.operator.make_token, "few", "few")
    cluster = opened(region.address, **trusting(region, Role.MONITOR) | {"token": token, "first_heartbeat_s": 1.0})
    try:
        with pytest.raises(
            Misconfigured, match=_no_stream(f"sees only the namespaces {THEIRS}, {OURS}, .* read-job in every one")
        ):
            await anext(cluster.watch.stream(0))
    finally:
        await cluster.aclose()


def _no_stream(found: str) -> str:
    """From some release on Nomad refuses a stream by silence, and we find what is lacking; before, it says 403."""
    return f"{found}|lacks read-job in every namespace, and node:read"


def test_every_capability_is_needed_for_something() -> None:
    for role, capabilities in ((Role.SCHEDULER, SCHEDULER_IN_OURS), (Role.MONITOR, MONITOR_IN_OURS)):
        assert set(capabilities) == {name for each, name, _ in NEEDS if each is role} - {"node:read", *SECRETS_IN_OURS}


# -- a token that loses rights while it is used -------------------------------------------------------------------


async def test_the_next_stream_of_a_token_that_was_narrowed_says_what_it_lacks(region: RealNomad) -> None:
    await asyncio.to_thread(region.operator.apply_policy, "fading", policy(Role.MONITOR, (OURS,)))
    token = await asyncio.to_thread(region.operator.make_token, "fading", "fading")
    cluster = opened(region.address, **trusting(region, Role.MONITOR) | {"token": token, "first_heartbeat_s": 1.0})
    try:
        assert await anext(cluster.watch.stream(0)) == Heartbeat()
        rules = policy(Role.MONITOR, (OURS,)).replace('"read-job",', "")
        await asyncio.to_thread(region.operator.apply_policy, "fading", rules)
        with pytest.raises(Misconfigured, match=_no_stream("read-job.*in namespace default")):
            await anext(cluster.watch.stream(0))
    finally:
        await cluster.aclose()
