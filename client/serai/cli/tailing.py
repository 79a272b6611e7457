"""Staying with jobs until they end: states on standard error, what the job prints on its own streams."""

import asyncio
from collections.abc import Sequence
from typing import Final

from serai import grids, outcomes
from serai.cli.screen import Screen
from serai.cli.session import Session
from serai.client import LogStream, Serai
from serai.errors import ClientError, Problem
from serai.outcomes import Exit
from serai.values import Job, last_words

LOGS_END_S: Final = 15.0
"""How long the last lines of a log may take to arrive after the job's end."""

STREAMS: Final[tuple[LogStream, ...]] = ("stdout", "stderr")


def follow_to_end(here: Session, screen: Screen, job: Job) -> int:
    """Show a job's states and output until it ends; its outcome as an exit code."""
    screen.say(f"job {job.id}")
    try:
        ended = here.ask(lambda serai: _Follower(serai, screen).to_end(job.id))
    except KeyboardInterrupt:
        detached(screen, [job.id])
        return Exit.INTERRUPTED
    if screen.json:
        screen.document(ended.raw)
    return outcomes.of_job(ended)


def wait_for(here: Session, screen: Screen, job_ids: Sequence[str], timeout_s: float | None) -> int:
    """Wait for all jobs, tell each change, then the result; the first outcome that is no success."""
    changes = _Changes(screen)
    try:
        jobs = here.ask(lambda serai: serai.wait(job_ids, timeout_s=timeout_s, seen=changes.tell))
    except KeyboardInterrupt:
        detached(screen, job_ids)
        return Exit.INTERRUPTED
    screen.data([job.raw for job in jobs], grids.jobs_grid(jobs, here.pace.now()))
    return outcomes.of_jobs(jobs)


def detached(screen: Screen, job_ids: Sequence[str]) -> None:
    """What Ctrl-C did, and did not."""
    ids = " ".join(map(grids.short, job_ids))
    screen.say(f"detached; still going on. Go on: `serai wait {ids}`, stop: `serai cancel {ids}`", "yellow")


class _Changes:
    """Tells a job's state once."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._told: dict[str, tuple[str, str | None, int, str | None]] = {}

    def tell(self, job: Job) -> None:
        look = (job.state, job.site, job.attempt, job.reason_code)
        if self._told.get(job.id) != look:
            self._told[job.id] = look
            self._screen.say(sentence(job), grids.COLOURS.get(job.state, ""))


def sentence(job: Job) -> str:
    """`3f9a1c22 failed at prague (attempt 2): The task ended with exit code 3.`"""
    words = f"{grids.short(job.id)} {job.state}"
    if job.site:
        words += f" at {job.site}"
    if job.attempt > 1:
        words += f" (attempt {job.attempt})"
    if job.exit_code and job.state == "failed" and f"exit code {job.exit_code}" not in (job.reason or ""):
        words += f": exit code {job.exit_code}"
    return f"{words}: {job.reason}" if job.reason and job.state != "succeeded" else words


async def words_of_site(serai: Serai, job: Job) -> str | None:
    """What the site itself said of a job that failed without an exit code, such as a program that is not there."""
    if job.state != "failed" or job.exit_code is not None or not job.attempt:
        return None
    return last_words(await serai.timeline(job.id))


class _Follower:
    """One job, its states, and the logs of each of its attempts."""

    def __init__(self, serai: Serai, screen: Screen) -> None:
        self._serai = serai
        self._screen = screen
        self._changes = _Changes(screen)
        self._logs: dict[int, list[asyncio.Task[None]]] = {}

    async def to_end(self, job_id: str) -> Job:
        try:
            job = await self._serai.until(job_id, lambda job: False, seen=self._seen)
            running = [task for tasks in self._logs.values() for task in tasks]
            if running:
                _, late = await asyncio.wait(running, timeout=LOGS_END_S)
                if late:
                    self._screen.say(f"the log did not end in time; see it whole: `serai logs {grids.short(job_id)}`")
        finally:
            await self._stop()
        self._screen.say(sentence(job), grids.COLOURS.get(job.state, ""))
        said = await words_of_site(self._serai, job)
        if said:
            self._screen.say(f"the site says: {said}", "yellow")
        return job

    def _seen(self, job: Job) -> None:
        if not job.ended:
            self._changes.tell(job)
        begun = job.attempt if job.state in ("queued", "running", "cancelling") or job.ended else job.attempt - 1
        for attempt in range(1, begun + 1):
            if attempt not in self._logs:
                before = [task for tasks in self._logs.values() for task in tasks]
                self._logs[attempt] = [
                    asyncio.create_task(self._copy(job.id, attempt, stream, before), name=f"{stream} of {job.id}")
                    for stream in STREAMS
                ]

    async def _copy(self, job_id: str, attempt: int, stream: LogStream, before: "list[asyncio.Task[None]]") -> None:
        """What one attempt prints, after all of what the attempts before it printed."""
        if before:
            await asyncio.wait(before)
        try:
            async for chunk in self._serai.logs(job_id, stream=stream, attempt=attempt, follow=True):
                self._screen.raw(chunk, error=stream == "stderr")
        except Problem as problem:
            if problem.status != 404:
                self._screen.say(f"no {stream}: {problem}", "yellow")
        except ClientError as error:
            self._screen.say(f"{stream} broke off: {error}", "yellow")

    async def _stop(self) -> None:
        tasks = [task for tasks in self._logs.values() for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
