"""Runs a folder of example jobs against a platform, shows them live, and compares each with its `expected.yaml`.

`make run` calls `run_examples`; it is a client like any other and speaks only HTTP.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx2
import yaml
from rich.console import Console

from serai import expecting, jobfile, keeping
from serai.board import Board, Example
from serai.client import Serai
from serai.errors import BadJobFile, ClientError, Problem
from serai.expecting import Actual, Expected, Visit
from serai.keeping import Kept
from serai.values import Event, last_verdicts

VISIT_S: Final = 10.0
"""Seconds that a service has from `running` to its first answer."""

KNOCK_S: Final = 0.1
"""Seconds between two tries to reach it."""


def load(folder: Path) -> list[Example]:
    """All examples of a folder, by name. Raises BadJobFile; also when there is none."""
    paths = sorted(path.parent for path in folder.glob("*/expected.yaml"))
    if not paths:
        raise BadJobFile([f"{folder}: holds no example (a folder with job.yaml and expected.yaml)"])
    return [_example(path) for path in paths]


def _example(path: Path) -> Example:
    expected = path / "expected.yaml"
    try:
        raw = yaml.safe_load(expected.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadJobFile([f"{expected}: {error}"]) from error
    return Example(path.name, jobfile.load(path / "job.yaml"), Expected.of(raw, str(expected)))


async def run_examples(
    url: str, tokens: Mapping[str, str], folder: Path, *, deadline_s: float = 30.0, console: Console | None = None,
    keep: Path | None = None, transport: httpx2.AsyncBaseTransport | None = None,
) -> int:  # fmt: skip
    """Hand in every example, show it, compare it; 0 only if each ended as its `expected.yaml` says.

    `tokens` maps the demo users whom the examples name to access tokens; `deadline_s` is for all together. Outputs,
    logs and timelines are saved in `keep`, a folder for each example; None saves nothing.
    """
    board = Board(console or Console())
    try:
        examples = load(folder)
        async with _clients(url, tokens, examples, transport) as clients:
            await _run_all(examples, clients, board, deadline_s)
            for example in examples:
                await _report(example, clients[example.expected.user], keep, board)
    except ClientError as error:
        board.say(str(error), "red")
        return 1
    return board.verdict(examples)


@asynccontextmanager
async def _clients(
    url: str, tokens: Mapping[str, str], examples: list[Example], transport: httpx2.AsyncBaseTransport | None
) -> AsyncIterator[dict[str, Serai]]:
    """One signed-in client for each user that the examples name."""
    users = {example.expected.user for example in examples}
    absent = sorted(users - set(tokens))
    if absent:
        raise BadJobFile([f"expected.yaml names user '{absent[0]}', for whom there is no token"])
    async with AsyncExitStack() as stack:
        yield {user: await stack.enter_async_context(Serai(url, tokens[user], transport=transport)) for user in users}


# -- running ------------------------------------------------------------------------------------------------------


async def _run_all(examples: list[Example], clients: Mapping[str, Serai], board: Board, deadline_s: float) -> None:
    """Run all at once until each has ended or the deadline has passed; what failed is kept with its example."""
    listeners: list[asyncio.Task[None]] = []
    with board.live(examples):
        try:
            async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
                for example in examples:
                    client = clients[example.expected.user]
                    group.create_task(_run(example, client, board, listeners), name=f"example {example.name}")
        except TimeoutError:
            for example in examples:
                if example.ended is None:
                    example.problems.append(f"not ended within {deadline_s:g} s")
        finally:
            for listener in listeners:
                listener.cancel()
            await asyncio.gather(*listeners, return_exceptions=True)


async def _run(example: Example, client: Serai, board: Board, listeners: list[asyncio.Task[None]]) -> None:
    example.handed_in = time.monotonic()
    try:
        example.job = await client.submit(example.file.job)
        board.moved(example)
        listeners.append(asyncio.create_task(_listen(example, client, board), name=f"events of {example.name}"))
        if example.expected.while_running is not None:
            await _visit_and_cancel(example, client, example.job.id, example.expected.while_running)
        (example.job,) = await client.wait([example.job.id])
    except Problem as problem:
        example.problems.extend((example.file.complaints(problem) or BadJobFile([str(problem)])).lines)
    except ClientError as error:
        example.problems.append(str(error))
    example.ended = time.monotonic()
    board.moved(example)


async def _listen(example: Example, client: Serai, board: Board) -> None:
    """Show each step as the event stream tells it. The outcome itself comes from the job, not from here."""
    assert example.job is not None
    try:
        async with aclosing(client.events(job_id=example.job.id)) as facts:  # type: ignore[type-var]
            async for fact in facts:
                if isinstance(fact, Event) and fact.kind.startswith("job.") and not example.job.ended:
                    state = fact.kind.removeprefix("job.")
                    example.job = replace(example.job, state=state, site=fact.site, attempt=fact.attempt)
                    board.moved(example)
    except ClientError as error:
        example.problems.append(f"event stream: {error}")


async def _visit_and_cancel(example: Example, client: Serai, job_id: str, visit: Visit) -> None:
    """Ask the service's endpoint where the job says that it answers, then cancel the job in any case."""
    try:
        running = await client.until(job_id, lambda job: visit.endpoint in job.endpoints)
        if visit.endpoint in running.endpoints:
            example.visited = await _fetch(f"http://{running.endpoints[visit.endpoint]}{visit.path}")
    finally:
        await client.cancel(job_id)


async def _fetch(url: str) -> str | None:
    """What answers at `url`; None when nothing does in time. A service begins to listen a moment after it runs."""
    last = time.monotonic() + VISIT_S
    async with httpx2.AsyncClient(timeout=VISIT_S, trust_env=False) as http:
        while time.monotonic() < last:
            try:
                return (await http.get(url)).text
            except httpx2.TransportError:
                await asyncio.sleep(KNOCK_S)
    return None


# -- comparing ----------------------------------------------------------------------------------------------------


async def _report(example: Example, client: Serai, keep: Path | None, board: Board) -> None:
    """Print the timeline and where the output is; compare with what is expected."""
    actual, kept = None, list[Kept]()
    if example.job is not None:
        try:
            actual = await _actual(example, client)
            if not example.problems:
                example.problems.extend(expecting.differences(example.expected, actual))
            if keep is not None:
                kept = await _keep(example, actual, client, keep / example.name)
        except ClientError as error:
            example.problems.append(str(error))
    board.outcome(example, actual.verdicts if actual and not actual.attempts else {}, kept)


async def _keep(example: Example, actual: Actual, client: Serai, folder: Path) -> list[Kept]:
    """Save all that the job left."""
    job = example.job
    assert job is not None
    declared = example.file.job.get("outputs") or ()
    files = {keeping.output_name(name, declared): content for name, content in actual.outputs.items()}
    files |= await keeping.logs_of(client, job)
    files |= {"timeline.txt": keeping.timeline_text(example.timeline), "job.json": keeping.job_text(job)}
    return keeping.save(folder, files)


async def _actual(example: Example, client: Serai) -> Actual:
    """What became of the job, from all that the platform tells about it."""
    job = example.job
    assert job is not None
    example.timeline = await client.timeline(job.id)
    verdicts = {each["site"]: each["code"] for each in last_verdicts(example.timeline)}
    names = [item["name"] for item in await client.outputs(job.id) if not item.get("problem")]
    outputs = {name: await client.output(job.id, name) for name in names}
    kinds = [event.kind for event in example.timeline]
    return Actual(
        state=job.state, exit_code=job.exit_code, attempts=job.attempt, reason=job.reason_code, outputs=outputs,
        verdicts=verdicts, timeline=kinds, visited=example.visited,
    )  # fmt: skip
