"""Jobs that run an image, for real: Docker at a site whose Nomad agent runs as root."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from serai.values import Job
from services.embedded.sites import BIO, CLIMATE
from shared.namespaces import namespace_of
from tests.docker_daemon import IMAGE, DockerDaemon, docker_daemon
from tests.real_nomad import RealNomad, real_nomad
from tests.scenarios.world import World, a_job, a_site, a_world, shell, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.nomad, pytest.mark.docker]


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerDaemon]:
    with docker_daemon() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def nomad(docker: DockerDaemon) -> Iterator[RealNomad]:
    plugin = {"endpoint": docker.endpoint, "gc": [{"image": False}], "allow_privileged": False}
    with real_nomad(
        name="prague", as_root=True, namespaces=(namespace_of(CLIMATE), namespace_of(BIO)),
        client={"plugin": [{"docker": [{"config": [plugin]}]}, {"raw_exec": [{"config": [{"enabled": True}]}]}]},
    ) as region:  # fmt: skip
        yield region


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(nomad: RealNomad, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("images")
    async with a_world(folder, a_site("prague"), mock=False, agents={"prague": nomad}) as up:
        yield up


def in_image(script: str, **fields: Any) -> dict[str, Any]:
    """A job that runs a script in the image."""
    return a_job(image=IMAGE, command=["/bin/sh", "-c", script], **fields)


async def ended(world: World, state: str, script: str, **fields: Any) -> Job:
    return await world.alice.sees(await world.alice.submit(in_image(script, **fields)), state)


async def output(world: World, job: str) -> str:
    return (await world.alice.serai.output(job, "said")).decode()


NETWORK_OF_THIS_MACHINE = str(Path("/proc/self/ns/net").readlink())
GROUPS_OF_VERSION_1 = Path("/sys/fs/cgroup/memory").is_dir()
SAID = [{"name": "said", "path": "said"}]


async def test_an_image_runs_with_its_files_and_leaves_logs_and_outputs(world: World) -> None:
    files = [{"path": "in.txt", "content": "from outside\n"}]
    script = "echo hello; echo trouble >&2; cat in.txt > said; echo $SERAI_SITE >> said"
    job = await ended(world, "succeeded", script, files=files, outputs=SAID)
    assert await output(world, job.id) == "from outside\nprague\n"
    assert await logs(world, job.id, "stdout") == b"hello\n"
    assert await logs(world, job.id, "stderr") == b"trouble\n"


async def logs(world: World, job: str, stream: str) -> bytes:
    answer = await world.alice.http.get(f"/v1/jobs/{job}/logs", params={"stream": stream})
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_a_program_that_fails_fails_the_job_with_its_exit_code(world: World) -> None:
    job = await ended(world, "failed", "exit 7")
    assert (job.reason_code, job.exit_code) == ("task_error", 7)


async def test_a_program_that_takes_more_memory_than_it_asked_for_is_ended_and_told_so(world: World) -> None:
    eats = "x=0123456789abcdef; while :; do x=$x$x; done"
    small = {"cpu": 0.1, "memory": 16, "disk": 10}
    job = await ended(world, "failed", eats, resources=small)
    assert job.reason_code == "out_of_memory"


async def test_an_image_that_nobody_has_is_said_so(world: World) -> None:
    """The registry it would come from is on loopback, and nobody listens there."""
    job = await world.alice.submit(a_job(image="127.0.0.1:9/none:1", command=["/bin/true"]))
    failed = await world.alice.sees(job, "failed")
    assert failed.reason_code == "image_or_artifact"
    told = [event for event in await world.alice.timeline(job) if event.kind == "attempt.failed"]
    assert "127.0.0.1:9/none:1" in str(told[0].raw), "Nomad's own words"


async def test_a_cancelled_container_is_gone(world: World, docker: DockerDaemon) -> None:
    alice = world.alice
    job = await alice.submit(in_image("trap 'exit 3' INT TERM; while :; do sleep 1; done"))
    await alice.sees(job, "running")
    await alice.serai.cancel(job)
    await alice.sees(job, "cancelled")
    assert (await alice.attempt(job, 1))[-1] == "stopped"

    async def gone() -> bool:
        return await asyncio.to_thread(docker.running) == 0

    await until(gone)


async def test_a_container_has_the_memory_and_the_share_of_the_processor_that_its_job_asked_for(world: World) -> None:
    """Under control groups of version 1 or 2: shares are Nomad's MHz, weights are made from them."""
    script = (
        "cd /sys/fs/cgroup; if [ -d memory ]; then cat memory/memory.limit_in_bytes cpu/cpu.shares; "
        "else cat memory.max cpu.weight; fi > /local/said"
    )
    asked = {"cpu": 0.5, "memory": 48, "disk": 10}
    job = await ended(world, "succeeded", script, resources=asked, outputs=SAID)
    memory, share = (await output(world, job.id)).split()
    assert int(memory) == 48 * 1024 * 1024
    assert int(share) == (500 if GROUPS_OF_VERSION_1 else 1 + (500 - 2) * 9999 // 262_142)


async def test_a_container_has_a_network_of_its_own_and_a_command_that_of_its_node(world: World) -> None:
    """What VO policies call `bridge` and `host` (docs/policies.md)."""
    look = "readlink /proc/self/ns/net > said"
    contained = await ended(world, "succeeded", look, outputs=SAID)
    command = await world.alice.submit(shell(look, outputs=SAID))
    await world.alice.sees(command, "succeeded")
    inside, outside = await output(world, contained.id), await output(world, command)
    assert outside.strip() == NETWORK_OF_THIS_MACHINE
    assert inside.strip() not in ("", NETWORK_OF_THIS_MACHINE)


# -- secrets ------------------------------------------------------------------------------------------------------

CANARY = "canary-6c1f-in-a-container"
ANY_BYTES = bytes(range(256))
KEY = [{"name": "key", "file": "key"}]


async def test_a_container_has_its_secret_as_a_file_and_docker_shows_it_to_nobody(
    world: World, nomad: RealNomad, docker: DockerDaemon
) -> None:
    alice = world.alice
    await alice.serai.set_secret("key", CANARY, CLIMATE)
    script = "cat $NOMAD_SECRETS_DIR/key > said; ls /secrets >> said; while :; do sleep 1; done"
    job = await alice.submit(in_image(script, secrets=KEY, outputs=SAID))
    await alice.sees(job, "running")
    shown = await asyncio.to_thread(docker.shown)
    assert job in shown, "the check of the check"
    assert CANARY not in shown
    assert [path for path in await variables(nomad) if job in path], "while it runs"
    await alice.serai.cancel(job)
    await alice.sees(job, "cancelled")

    async def forgotten() -> bool:
        return not [path for path in await variables(nomad) if job in path]

    await until(forgotten)
    assert CANARY not in await asyncio.to_thread(docker.shown)
    assert CANARY not in str(await asyncio.to_thread(nomad.operator.ask, "GET", f"/v1/jobs?prefix={job}&namespace=*"))


async def test_a_secret_of_any_bytes_comes_into_a_container_as_it_is(world: World) -> None:
    await world.alice.serai.set_secret("any", ANY_BYTES, CLIMATE)
    named = [{"name": "any", "file": "any"}]
    job = await ended(world, "succeeded", "cat $NOMAD_SECRETS_DIR/any > said", secrets=named, outputs=SAID)
    assert await world.alice.serai.output(job.id, "said") == ANY_BYTES


async def test_a_container_that_names_no_secret_has_none_and_sees_no_others(world: World) -> None:
    await world.alice.serai.set_secret("key", CANARY, CLIMATE)
    holds = await world.alice.submit(in_image("while :; do sleep 1; done", secrets=KEY))
    await world.alice.sees(holds, "running")
    job = await ended(
        world, "succeeded", "cat /secrets/key ../*/secrets/key > said 2>&1; ls /secrets >> said", outputs=SAID
    )
    assert CANARY not in await output(world, job.id)
    await world.alice.serai.cancel(holds)
    await world.alice.sees(holds, "cancelled")


async def variables(nomad: RealNomad) -> list[str]:
    """The paths of all Nomad variables of jobs."""
    found = await asyncio.to_thread(nomad.operator.ask, "GET", "/v1/vars?prefix=nomad/jobs/&namespace=*")
    return [each["Path"] for each in found or ()]
