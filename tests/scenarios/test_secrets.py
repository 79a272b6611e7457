"""A secret's whole way: set by its owner, read by a job as a file, gone from the site with the job, nowhere else."""

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from serai.errors import Problem
from services.embedded.sites import BIO, CLIMATE
from tests.scenarios.world import World, a_site, a_world, shell, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
CANARY = b"canary-\x00\xff-c0ffee-91d2"
SPELLINGS = (CANARY, base64.b64encode(CANARY), CANARY.hex().encode(), b"c0ffee-91d2")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    overrides = {"scheduler": {"leftovers_s": 0.2}}
    async with a_world(tmp_path_factory.mktemp("secrets"), a_site("prague"), mock=False, **overrides) as up:
        yield up


async def left_at(world: World, site: str = "prague") -> list[str]:
    return [path for _, path in world.agents[site].region.state.variables]


def kept(folder: Path) -> dict[str, bytes]:
    """Every file under the platform's folder, whatever it is."""
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


async def test_a_job_reads_its_owners_secret_and_no_copy_of_it_is_left_anywhere(world: World) -> None:
    alice, data = world.alice, world.agents["prague"].settings.data_dir.parent.parent
    await alice.serai.set_secret("s3.key", CANARY, CLIMATE)
    wait = 'cat "$NOMAD_SECRETS_DIR/key" | sha256sum > seen; while [ ! -e go ]; do sleep 0.05; done'
    job = await alice.submit(
        shell(wait, secrets=[{"name": "s3.key", "file": "key"}], outputs=[{"name": "seen", "path": "seen"}])
    )
    running = await alice.sees(job, "running")
    assert await left_at(world) == [f"nomad/jobs/{job}-001"]
    files = kept(data)
    holders = [name for name, content in files.items() if CANARY in content]
    assert [name.split("/main/")[1] for name in holders] == ["secrets/key"], "while it runs: its own file, nothing else"
    (world.folder(running) / "go").touch()
    done = await alice.sees(job, "succeeded")
    assert await alice.serai.output(job, "seen") == hashlib.sha256(CANARY).hexdigest().encode() + b"  -\n"

    async def forgotten() -> bool:
        return not await left_at(world)

    await until(forgotten, "the site has forgotten the secret")
    told = [str(event.raw) for event in await alice.timeline(job)]
    told += [str(done.raw), str(await alice.why(job)), str(await alice.serai.trace(job))]
    told.append((await alice.http.get("/v1/secrets")).text)
    told.append((await alice.http.get(f"/v1/jobs/{job}/spec")).text)
    for spelling in SPELLINGS:
        assert not any(spelling.decode("latin-1") in each for each in told)
        for name, content in kept(data).items():
            assert spelling not in content or name.endswith("main/secrets/key"), name


async def test_a_name_that_is_not_there_refuses_the_job_and_says_what_to_do(world: World) -> None:
    await world.alice.serai.set_secret("mine", "x", BIO)
    for who, name in ((world.alice, "mine"), (world.alice, "nothing"), (world.bob, "mine")):
        with pytest.raises(Problem) as refused:
            await who.submit(shell("true", vo=CLIMATE if who is world.alice else BIO, secrets=[{"name": name}]))
        assert (refused.value.code, f"serai secrets set {name}" in refused.value.detail) == ("secret_missing", True)


async def test_a_job_in_the_queue_ends_with_the_reason_when_its_secret_is_deleted(world: World) -> None:
    alice = world.alice
    await alice.serai.set_secret("fleeting", "x", CLIMATE)
    blocker = await alice.runs(shell("while [ ! -e go ]; do sleep 0.05; done", resources={"cpu": 1.9, "memory": 32}))
    job = await alice.submit(shell("true", secrets=[{"name": "fleeting"}], resources={"cpu": 1.9, "memory": 32}))
    await alice.sees(job, "queued")
    await alice.serai.delete_secret("fleeting", CLIMATE)
    (world.folder(blocker) / "go").touch()
    ended = await alice.sees(job, "failed")
    assert ended.reason_code == "secret_missing"
    assert "fleeting" in (ended.reason or "")
    await world.over_at("prague", job)


async def test_a_cancelled_job_leaves_no_secret(world: World) -> None:
    alice = world.alice
    await alice.serai.set_secret("key", "x", CLIMATE)
    job = (await alice.runs(shell("sleep 60", secrets=[{"name": "key"}]))).id
    assert f"nomad/jobs/{job}-001" in await left_at(world)
    await alice.serai.cancel(job)
    await alice.sees(job, "cancelled")

    async def forgotten() -> bool:
        return f"nomad/jobs/{job}-001" not in await left_at(world)

    await until(forgotten)


async def test_what_a_restored_database_does_not_know_is_found_by_the_sweep(world: World) -> None:
    agent = world.agents["prague"]
    txn = agent.region.state.begin("VarApplyStateRequestType", agent.now())
    path = "nomad/jobs/0198aaaa-0000-7000-8000-000000000001-001"
    txn.put_variable(("default", path), {"Data": agent.keyring.seal(path, {"key": "eA=="})})
    txn.commit()
    await agent.durable()

    async def swept() -> bool:
        return path not in await left_at(world)

    await until(swept, "the sweep has found what nobody knows")


async def test_secrets_are_seen_by_their_owner_alone(world: World) -> None:
    await world.alice.serai.set_secret("shared-name", "alice's", BIO)
    await world.bob.serai.set_secret("shared-name", "bob's", BIO)
    assert [each["name"] for each in await world.bob.serai.secrets()] == ["shared-name"]
    await world.bob.serai.delete_secret("shared-name", BIO)
    with pytest.raises(Problem) as gone:
        await world.bob.serai.delete_secret("shared-name", BIO)
    assert gone.value.status == 404
    assert "shared-name" in [each["name"] for each in await world.alice.serai.secrets(BIO)]
    with pytest.raises(Problem) as observer:
        await world.bob.serai.set_secret("x", "x", CLIMATE)
    assert (observer.value.status, "observer" in observer.value.detail) == (403, True)
