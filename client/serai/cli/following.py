"""`wait`, `logs`, `events` and `cancel`: staying with jobs, or ending them."""

import asyncio
import codecs
from contextlib import aclosing
from typing import Annotated

import typer

from serai import grids, outcomes
from serai.cli import session, tailing
from serai.cli.screen import Format, Screen, complain
from serai.cli.session import JobArgument, JobsArgument, Output, examples
from serai.client import LogStream, Serai
from serai.errors import ClientError, Problem
from serai.outcomes import Exit
from serai.values import ATTEMPT_STATES, JOB_STATES, Event, Gap, Job

Both = Annotated[str, typer.Option(help="stdout, stderr, or both.", metavar="both|stdout|stderr")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog=examples("serai wait last", "serai wait 3f9a1c22 77b0d1e4 --timeout 10m"))(wait)
    app.command(epilog=examples("serai logs last", "serai logs -f 3f9a1c22", "serai logs --stream stderr last"))(logs)
    app.command(
        epilog=examples("serai events -f", "serai events last", "serai events -f --state failed -o json | jq .data")
    )(events)
    app.command(epilog=examples("serai cancel last", "serai cancel 3f9a1c22 --wait"))(cancel)


def wait(
    context: typer.Context,
    jobs: JobsArgument,
    timeout: Annotated[str | None, typer.Option(help="Give up after, e.g. 10m: exit 124, the jobs go on.")] = None,
    output: Output = Format.TABLE,
) -> int:
    """Wait until all jobs have ended. Exit with the first outcome that is no success."""
    here, limit = session.of(context), session.seconds(timeout)
    ids = here.ask(lambda serai: _ids(serai, jobs))
    return tailing.wait_for(here, here.screen(output), ids, limit)


async def _ids(serai: Serai, given: list[str]) -> list[str]:
    return [await session.job_id(serai, each) for each in given]


def logs(
    context: typer.Context,
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt ends.")] = False,
    stream: Both = "both",
    attempt: Annotated[int | None, typer.Option(min=1, help="Which attempt; else the current one.")] = None,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last so many bytes.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """What a job prints, on the same stream; also after its end. JSON: one object a piece, with its stream and text."""
    here = session.of(context)
    if stream not in ("both", *tailing.STREAMS):
        raise typer.BadParameter(f"--stream {stream}: choose both, stdout or stderr")
    chosen = [each for each in tailing.STREAMS if stream in ("both", each)]
    screen = here.screen(output)

    async def copy(serai: Serai) -> int:
        id = await session.job_id(serai, job)
        number = attempt or await _current(serai, id, follow)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_copy(serai, screen, id, each, number, follow, tail)) for each in chosen]
        return sum(task.result() for task in tasks)

    try:
        if not here.ask(copy):
            screen.say("it printed nothing" if stream == "both" else f"nothing on {stream}")
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def _current(serai: Serai, job_id: str, follow: bool) -> int:
    """The number of the job's attempt, which `follow` waits for. Raises Problem where there is none."""
    job = await (serai.until(job_id, lambda job: job.attempt > 0) if follow else serai.job(job_id))
    if job.attempt:
        return job.attempt
    short = grids.short(job_id)
    if job.ended:
        raise Problem(404, code="not_found", detail=f"the job never ran, so it has no log; it {job.state}").then(
            f"see why: `serai why {short}`"
        )
    raise Problem(404, code="not_found", detail=f"no log yet: the job is {job.state}").then(
        f"wait for it: `serai logs -f {short}`, or see why: `serai why {short}`"
    )


async def _copy(
    serai: Serai, screen: Screen, job_id: str, stream: LogStream, attempt: int | None, follow: bool, tail: int | None
) -> int:
    """Write the log as it comes; the bytes that there were."""
    decode, seen = codecs.getincrementaldecoder("utf-8")("replace").decode, 0
    chunks = serai.logs(job_id, stream=stream, attempt=attempt, follow=follow, tail=tail)
    try:
        async with aclosing(chunks) as source:  # type: ignore[type-var]
            async for chunk in source:
                seen += len(chunk)
                if screen.json:
                    screen.line_of_json({"stream": stream, "attempt": attempt, "text": decode(chunk)})
                else:
                    screen.raw(chunk, error=stream == "stderr")
        return seen
    except Problem as problem:
        if problem.status == 404:
            problem.then(f"see its attempts: `serai job {grids.short(job_id)}`")
        raise


def events(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only of this job.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen.")] = False,
    vo: Annotated[list[str] | None, typer.Option(help="Only of this VO; repeatable.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only with this state or status; repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only of jobs with it.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on behind this position (`position` in JSON).")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Events as they happen (-f), or those of one job so far. JSON: one CloudEvent a line."""
    here = session.of(context)
    screen = here.screen(output)
    labels = session.pairs(label, "--label")
    wanted = session.states(state, tuple(dict.fromkeys((*JOB_STATES, *ATTEMPT_STATES))))
    if job is None and not follow:
        raise typer.BadParameter("name a job to see its events so far, or add -f to hear all as they happen")

    async def listen(serai: Serai) -> None:
        id = await session.job_id(serai, job) if job else None
        if id and not follow:
            for event in await serai.timeline(id):
                _tell(screen, event)
            return
        facts = serai.events(job_id=id, vos=vo or (), states=wanted, labels=labels, after=after)
        async with aclosing(facts) as source:  # type: ignore[type-var]
            async for fact in source:
                _tell(screen, fact)

    here.ask(listen)


def _tell(screen: Screen, fact: Event | Gap) -> None:
    if isinstance(fact, Gap):
        screen.say(f"gap: events may be lost ({fact.message}); read again what you follow", "yellow")
    if screen.json:
        screen.line_of_json({"gap": fact.raw} if isinstance(fact, Gap) else {**fact.raw, "position": fact.position})
    elif isinstance(fact, Event):
        subject = grids.short(fact.job_id) if fact.job_id else fact.site or ""
        attempt = f" attempt {fact.attempt}" if fact.attempt else ""
        where = f" at {fact.site}" if fact.site and fact.job_id else ""
        why = f": {fact.reason}" if fact.reason else ""
        screen.line(f"{grids.clock_time(fact.time)} {subject} {fact.kind}{attempt}{where}{why}")


def cancel(
    context: typer.Context,
    jobs: JobsArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until they have ended.")] = False,
    output: Output = Format.TABLE,
) -> int:
    """Cancel jobs. It is over when the state is `cancelled`: the site has confirmed; a faster job may succeed."""
    here = session.of(context)
    screen = here.screen(output)

    async def ask(serai: Serai) -> tuple[list[Job], list[ClientError]]:
        asked: list[Job] = []
        refused: list[ClientError] = []
        for id in await _ids(serai, jobs):
            try:
                asked.append(await serai.cancel(id))
            except ClientError as error:
                refused.append(error)
        return (await serai.wait([job.id for job in asked]) if wait else asked), refused

    asked, refused = here.ask(ask)
    if screen.json:
        screen.document([job.raw for job in asked])
    for job in asked:
        words = f"had ended before: {job.state}" if job.ended and not wait else job.state if wait else "asked to cancel"
        screen.say(f"{grids.short(job.id)} {words}")
    for error in refused:
        complain(f"serai: {error}", outcomes.advice(error, here.url))
    return outcomes.of_error(refused[0]) if refused else Exit.OK
