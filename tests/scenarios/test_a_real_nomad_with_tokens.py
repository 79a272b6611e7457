"""The whole platform at a real Nomad with ACLs and TLS: rights that are taken away while jobs run are no mass death."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from services.embedded.platform import platform
from services.embedded.settings import EmbeddedSettings
from services.embedded.sites import BIO, CLIMATE
from shared.adapters.nomad.local_trust import Authority
from shared.adapters.nomad.policies import Role, policy
from shared.namespaces import namespace_of
from shared.runtime.in_process import InProcessTransport
from shared.runtime.service import Service
from tests.real_nomad import RealNomad, real_nomad
from tests.scenarios.world import QUICK, World, a_port, a_site, a_world, shell, site_is, sites_file, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.nomad]

OURS = (namespace_of(CLIMATE), namespace_of(BIO))
MANY = 8
"""More than may vanish together and be believed."""
AMONG_OTHERS = {"stop_unknown_strays": False}
"""For platforms that stand at one cluster: each would stop what the other runs there."""


@pytest.fixture(scope="module")
def nomad() -> Iterator[RealNomad]:
    with real_nomad(name="prague", guarded=True, namespaces=OURS) as region:
        yield region


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(nomad: RealNomad, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    rules = {"vanish_few": 2, "relist_interval_s": 1, "probe_interval_s": 0.5}
    folder = tmp_path_factory.mktemp("tokens")
    async with a_world(
        folder, a_site("prague"), mock=False, agents={"prague": nomad}, monitor=rules, scheduler=AMONG_OTHERS
    ) as up:
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
    only_what_is_left = (
        nomad.operator.policy_for(Role.SCHEDULER, OURS).replace('"read-job",', "").replace('"list-jobs",', "")
    )
    await give(nomad, Role.SCHEDULER, only_what_is_left)
    await give(nomad, Role.MONITOR, NARROWED[how])
    await site_is(alice, "prague", suspect=True)
    late = await alice.submit(shell("echo late"))

    async def waits() -> bool:
        return (await alice.verdicts(late)).get("prague") == "site_suspect"

    await until(waits)
    assert {(await alice.job(job)).state for job in jobs} == {"running"}
    await give(nomad, Role.MONITOR, policy(Role.MONITOR, OURS))
    await give(nomad, Role.SCHEDULER, nomad.operator.policy_for(Role.SCHEDULER, OURS))
    await site_is(alice, "prague", suspect=False, reachable=True)
    assert (await alice.sees(late, "succeeded")).attempt == 1
    for job in jobs:
        assert (await alice.job(job)).attempt == 1
        await alice.serai.cancel(job)
    for job in jobs:
        await alice.sees(job, "cancelled")


# -- tokens that are renewed --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Renewed:
    """The same region, its token in a file that its operator renews."""

    nomad: RealNomad
    file: Path
    made: int = 0

    @property
    def address(self) -> str:
        return self.nomad.address

    def trusting(self) -> Mapping[str, Any]:
        kept = {name: value for name, value in self.nomad.trusting().items() if name != "token"}
        return kept | {"token_file": self.file}

    def renew(self) -> None:
        """A new token in the file; the former one is good no more."""
        operator, self.made = self.nomad.operator, self.made + 1
        self.file.write_text(operator.make_token(f"ours-{self.made}", *Role))
        for token in operator.ask("GET", "/v1/acl/tokens"):
            if token["Name"] == f"ours-{self.made - 1}":
                operator.ask("DELETE", f"/v1/acl/token/{token['AccessorID']}")


async def test_a_token_that_is_renewed_in_its_file_is_taken_up_by_what_runs(nomad: RealNomad, tmp_path: Path) -> None:
    agent = Renewed(nomad, tmp_path / "nomad.token")
    await asyncio.to_thread(agent.renew)
    async with a_world(
        tmp_path, a_site("prague"), mock=False, agents={"prague": agent}, scheduler=AMONG_OTHERS
    ) as world:
        alice = world.alice
        job = (await alice.runs(shell("sleep 1000"))).id
        await asyncio.to_thread(agent.renew)
        after = await alice.submit(shell("echo after"))
        assert (await alice.sees(after, "succeeded")).attempt == 1
        await site_is(alice, "prague", suspect=False, reachable=True)
        assert ((await alice.job(job)).state, (await alice.job(job)).attempt) == ("running", 1)
        await alice.serai.cancel(job)
        await alice.sees(job, "cancelled")


# -- a site that we are told of wrongly ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """What the platform is told of the site."""

    address: str
    settings: Mapping[str, Any]

    def trusting(self) -> Mapping[str, Any]:
        return self.settings


def told_wrongly(nomad: RealNomad, folder: Path) -> dict[str, tuple[Told, str]]:
    """Each mistake with what must be said of it."""
    good = nomad.trusting()
    other = Authority(folder / "other", datetime.now(UTC)).file
    stranger = "11111111-2222-4333-8444-555555555555"
    plain = nomad.address.replace("https:", "http:")
    return {
        "another authority": (Told(nomad.address, good | {"ca_file": other}), "mend ca_file or tls_server_name"),
        "another name": (
            Told(nomad.address, good | {"tls_server_name": "server.lyon.nomad"}), "mend ca_file or tls_server_name",
        ),
        "no TLS": (Told(plain, {"token": good["token"]}), "the address begins with https://"),
        "an unknown token": (Told(nomad.address, good | {"token": stranger}), "mend the Nomad token"),
        "no token": (Told(nomad.address, good | {"token": ""}), "we have no token: set one"),
    }  # fmt: skip


MISTAKES = ("another authority", "another name", "no TLS", "an unknown token", "no token")


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_what_keeps_us_out_of_a_site_stands_in_readyz_of_both_who_go_there(
    nomad: RealNomad, tmp_path: Path, mistake: str
) -> None:
    told, words = told_wrongly(nomad, tmp_path)[mistake]
    settings = EmbeddedSettings(data=tmp_path / "data", sites=sites_file(tmp_path, a_site("prague")), port=a_port())
    async with platform(settings, overrides=QUICK, agents={"prague": told}) as up:
        for service in up.services:
            if service.name in ("scheduler", "monitor"):
                assert await said_of(service, words) == 200, "one site takes nothing from the others"


async def said_of(service: Service, words: str) -> int:
    """The status of `/readyz` once it says this of the site."""
    async with httpx2.AsyncClient(transport=InProcessTransport(service.app), base_url="http://here") as http:

        async def told() -> httpx2.Response | None:
            answer = await http.get("/readyz")
            return answer if words in answer.json().get("sites", {}).get("prague", "") else None

        answer = await until(told, f"{service.name} says {words!r}")
        assert answer is not None
        return answer.status_code
