"""Schemathesis, as anybody may run it, against the running gateway and the description that it gives of itself.

With all its checks but the two named below: whatever is sent, no answer is a 500, and every status, content type,
header and body is one that the description knows. Seeded and bounded; `schemathesis run URL/openapi.json` finds more
with time.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from tests.system import processes
from tests.system.processes import Up

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANNOT_BE_SAID = "positive_data_acceptance"
"""What fits the schema may still be refused: a cursor of another list, a secret that is not there, `offset` with
`tail`, an ETag that has changed. No schema can say these."""
EACH_BY_ITSELF = "negative_data_rejection"
"""A batch is answered although one of its jobs is wrong: that one is refused by itself, in its item."""
BATCH = "/v1/jobs:batch"
LOGS = "/v1/jobs/{job_id}/logs"
"""Followed, the log of a job that waits does not end, and schemathesis waits for the end of what is no event stream."""
RUN_S = 240.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    async with processes.up(tmp_path_factory.mktemp("fuzzing"), "--mock") as made:
        yield made


async def token(up: Up, user: str) -> str:
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{up.first['issuer']}/demo/token", data={"user": user})
    return str(answer.raise_for_status().json()["access_token"])


async def fuzzed(up: Up, user: str, folder: Path, *options: str) -> processes.Ended:
    """One run of schemathesis in a folder of its own."""
    words = (
        "schemathesis", "run", f"{up.gateway}/openapi.json", "-H", f"Authorization: Bearer {await token(up, user)}",
        "--seed", "20261126", "--max-examples", "5", "--request-timeout", "5", "--no-color", "--checks", "all",
        "--generation-database", "none", *options,
    )  # fmt: skip
    async with asyncio.timeout(RUN_S):
        return await processes.run(*words, folder=folder, where=folder, deadline_s=RUN_S)


@pytest.mark.parametrize(("user", "phases"), [("alice", "examples,coverage,fuzzing,stateful"), ("olga", "coverage")])
async def test_whatever_is_sent_is_answered_as_described(up: Up, user: str, phases: str, tmp_path: Path) -> None:
    left_out = ("--exclude-checks", CANNOT_BE_SAID, "--exclude-path", BATCH, "--exclude-path", LOGS)
    ended = await fuzzed(up, user, tmp_path, "--phases", phases, *left_out)
    assert ended.code == 0, ended.out[-8_000:]


async def test_batches_as_well(up: Up, tmp_path: Path) -> None:
    excluded = f"{CANNOT_BE_SAID},{EACH_BY_ITSELF}"
    only = ("--include-path", BATCH, "--phases", "coverage")
    ended = await fuzzed(up, "alice", tmp_path, "--exclude-checks", excluded, *only)
    assert ended.code == 0, ended.out[-8_000:]


async def test_it_is_still_well_afterwards(up: Up) -> None:
    async with httpx2.AsyncClient(base_url=up.gateway, trust_env=False) as client:
        assert (await client.get("/readyz")).status_code == 200
    ended = await up.stop()
    assert "Traceback" not in ended.err
    assert "unexpected_error" not in ended.err
