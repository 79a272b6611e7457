"""The whole platform at a real Nomad with ACLs and TLS: rights that are taken away while jobs run are no mass death."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from services.embedded.sites import BIO, CLIMATE
from shared.adapters.nomad.policies import Role, policy
from shared.namespaces import namespace_of
from tests.real_nomad import RealNomad, real_nomad
from tests.scenarios.world import World, a_site, a_world, shell, site_is, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.nomad]

OURS = (namespace_of(CLIMATE), namespace_of(BIO))
MANY = 8
"""More than may vanish together and be believed."""


@pytest.fixture(scope="module")
def nomad() -> Iterator[RealNomad]:
    with real_nomad(name="prague", guarded=True, namespaces=OURS) as region:
        yield region


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(nomad: RealNomad, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    rules = {"vanish_few": 2, "relist_interval_s": 1, "probe_interval_s": 0.5}
    folder = tmp_path_factory.mktemp("tokens")
    async with a_world(folder, a_site("prague"), mock=False, agents={"prague": nomad}, monitor=rules) as up:
        yield up


async def give(nomad: RealNomad, role: Role, rules: str) -> None:
    """The operator changes a policy; tokens that have it follow at once."""
    await asyncio.to_thread(nomad.operator.apply_policy, role, rules)


def less(capability: str) -> str:
    """The monitor's policy without a capability."""
    lines = policy(Role.MONITOR, OURS).splitlines()
    return "\n".join(line for line in lines if f'"{capability}"' not in line)


NARROWED = {
    "may read no job any more": less("read-job"),
    "sees another namespace only": 'namespace "default" {\n  capabilities = ["list-jobs", "read-job"]\n}\n',
}


@pytest.mark.parametrize("how", NARROWED)
async def test_a_narrowed_token_makes_the_site_suspect_and_no_job_lost(
    world: World, nomad: RealNomad, how: str
) -> None:
    alice = world.alice
    jobs = [await alice.submit(shell("sleep 1000")) for _ in range(MANY)]
    for job in jobs:
        await alice.sees(job, "running")
    only_what_is_left = policy(Role.SCHEDULER, OURS).replace('"read-job",', "").replace('"list-jobs",', "")
    await give(nomad, Role.SCHEDULER, only_what_is_left)
    await give(nomad, Role.MONITOR, NARROWED[how])
    await site_is(alice, "prague", suspect=True)
    late = await alice.submit(shell("echo late"))

    async def waits() -> bool:
        return (await alice.verdicts(late)).get("prague") == "site_suspect"

    await until(waits)
    assert {(await alice.job(job)).state for job in jobs} == {"running"}
    await give(nomad, Role.MONITOR, policy(Role.MONITOR, OURS))
    await give(nomad, Role.SCHEDULER, policy(Role.SCHEDULER, OURS))
    await site_is(alice, "prague", suspect=False, reachable=True)
    assert (await alice.sees(late, "succeeded")).attempt == 1
    for job in jobs:
        assert (await alice.job(job)).attempt == 1
        await alice.serai.cancel(job)
    for job in jobs:
        await alice.sees(job, "cancelled")
