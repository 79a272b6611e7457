"""A running job tells of itself with its own token: from the task's file to what its owner sees, and no further."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from serai.values import Job
from services.embedded.sites import CLIMATE
from shared.namespaces import namespace_of
from tests.scenarios.world import World, a_site, a_world, shell, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
AT_PRAGUE = {"sites": {"allow": ["prague"]}}
REPORT = 'from serai import inside; assert inside.report(0.5, "half way", loss=0.25)'
TELLS = f"""{sys.executable} -c '{REPORT}' && while [ ! -e go ]; do sleep 0.05; done"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    sites = a_site("prague"), a_site("lyon", country="FR")
    async with a_world(tmp_path_factory.mktemp("progress"), *sites, mock=False) as up:
        yield up


async def test_progress_of_a_job_is_seen_while_it_runs(world: World) -> None:
    alice = world.alice
    job = await alice.submit(shell(TELLS))
    running = await alice.sees(job, "running")

    async def told() -> Job | None:
        found = await alice.job(job)
        return found if found.raw.get("progress") else None

    found = await until(told, "the job has told of itself")
    assert found is not None
    progress = found.raw["progress"]
    assert (progress["fraction"], progress["message"], progress["results"]) == (0.5, "half way", {"loss": 0.25})
    assert (found.progress, progress["attempt"]) == (0.5, 1)
    (world.folder(running) / "go").touch()
    await alice.sees(job, "succeeded")
    kinds = [event.kind for event in await alice.timeline(job)]
    assert kinds.count("job.progress") == 1
    assert [event.kind for event in await alice.hears(job)].count("job.progress") == 1


async def its_token(world: World, job: Job) -> str:
    file = world.folder(job).parent / "secrets" / "nomad_serai.jwt"

    async def written() -> str:
        return await asyncio.to_thread(lambda: file.read_text() if file.exists() else "")

    return await until(written)


async def ask(world: World, token: str, method: str, path: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=world.up.gateway, headers=headers, trust_env=False) as http:
        body = None if method == "GET" else {"fraction": 1}
        return (await http.request(method, path, json=body)).status_code


async def test_b9_a_job_cannot_read_or_tell_of_another_one(world: World) -> None:
    alice = world.alice
    one, other = [await alice.runs(shell("while [ ! -e go ]; do sleep 0.05; done")) for _ in range(2)]
    token = await its_token(world, one)
    assert await ask(world, token, "GET", f"/v1/jobs/{one.id}") == 200
    for method, path in (
        ("GET", f"/v1/jobs/{other.id}"), ("POST", f"/v1/jobs/{other.id}/progress"), ("GET", "/v1/jobs"),
        ("GET", f"/v1/jobs/{one.id}/spec"), ("GET", f"/v1/jobs/{one.id}/logs"), ("DELETE", f"/v1/jobs/{one.id}"),
        ("GET", "/v1/secrets"), ("GET", "/v1/whoami"), ("POST", "/v1/jobs"),
    ):  # fmt: skip
        assert await ask(world, token, method, path) == 403, path
    assert await ask(world, token, "POST", f"/v1/jobs/{one.id}/progress") == 202
    for job in (one, other):
        (world.folder(job) / "go").touch()
        await alice.sees(job.id, "succeeded")
    assert await ask(world, token, "GET", f"/v1/jobs/{one.id}") == 403
    assert await ask(world, token, "POST", f"/v1/jobs/{one.id}/progress") == 403


async def test_b9_a_site_speaks_for_its_own_jobs_only(world: World) -> None:
    """A site that is taken over signs a token for a job that runs elsewhere."""
    job = await world.alice.runs(shell("while [ ! -e go ]; do sleep 0.05; done", placement=AT_PRAGUE))
    elsewhere = world.agents["lyon"]
    claims = {
        "iss": elsewhere.issuer, "aud": "serai", "sub": "x", "nomad_job_id": f"{job.id}-001", "nomad_task": "main",
        "nomad_namespace": namespace_of(CLIMATE), "nomad_allocation_id": "a1", "jti": "1",
        "iat": int(time.time()), "exp": int(time.time()) + 600,
    }  # fmt: skip
    forged = elsewhere.keyring.sign(claims)
    assert await ask(world, forged, "GET", f"/v1/jobs/{job.id}") == 403
    honest = world.agents["prague"].keyring.sign(claims | {"iss": world.agents["prague"].issuer})
    assert await ask(world, honest, "GET", f"/v1/jobs/{job.id}") == 200, "the check of the check"
    (world.folder(job) / "go").touch()
    await world.alice.sees(job.id, "succeeded")
