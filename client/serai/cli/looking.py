"""`jobs`, `job`, `timeline`, `why`, `outputs` and `trace`: looking at what is there."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from serai import grids, keeping
from serai.cli import session, submitting
from serai.cli.screen import Format, Screen
from serai.cli.session import JobArgument, Output, examples
from serai.cli.tailing import sentence, words_of_site
from serai.client import Serai
from serai.errors import BadSettings, Problem
from serai.values import JOB_STATES, Event, Job, Json


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        epilog=examples("serai jobs", "serai jobs --state running --state queued", "serai jobs --label run=7 -o json")
    )(jobs)
    app.command(epilog=examples("serai job last", "serai job 3f9a1c22 -o json | jq .attempts"))(job)
    app.command(epilog=examples("serai timeline last"))(timeline)
    app.command(epilog=examples("serai why last", "serai why job.yaml"))(why)
    app.command(epilog=examples("serai outputs last", "serai outputs last counts", "serai outputs last --to results/"))(
        outputs
    )
    app.command(epilog=examples("serai trace last"))(trace)


def jobs(
    context: typer.Context,
    whole_vo: Annotated[bool, typer.Option("--all", help="All jobs of your VOs, where your role shows them.")] = False,
    vo: Annotated[str | None, typer.Option(help="Only of this VO.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state; repeatable.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Only at this site; repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only with it; repeatable.")] = None,
    since: Annotated[str | None, typer.Option(help="Only handed in within, for example 2h.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """Your jobs, newest first."""
    here, labels = session.of(context), session.pairs(label, "--label")
    wanted = session.states(state, JOB_STATES)
    age_s = session.seconds(since)
    after = (here.pace.now() - timedelta(seconds=age_s)).isoformat() if age_s else None

    async def read(serai: Serai) -> list[Job]:
        found: list[Job] = []
        async for each in serai.jobs(
            whole_vo=whole_vo, vo=vo, states=wanted, sites=site or (), labels=labels, created_after=after,
            page=min(limit, 100),
        ):  # fmt: skip
            found.append(each)
            if len(found) >= limit:
                break
        return found

    found = here.ask(read)
    screen = here.screen(output)
    if found or screen.json:
        screen.data([each.raw for each in found], grids.jobs_grid(found, here.pace.now()))
    else:
        filtered = bool(wanted or site or labels or since or vo)
        screen.say("no such job" if filtered else "no job yet; hand one in: `serai run -- echo hello`")


def job(context: typer.Context, job: JobArgument, output: Output = Format.TABLE) -> None:
    """One job: state, attempts, where it answers, and why."""
    here = session.of(context)
    screen, (found, said) = here.screen(output), here.ask(lambda serai: _looked_at(serai, job))
    if screen.json:
        screen.document(found.raw)
        return
    screen.line(sentence(found))
    if said:
        screen.line(f"the site says: {said}")
    now = here.pace.now()
    pairs = {
        "id": found.id, "name": found.name, "vo": found.vo, "owner": found.owner,
        "handed in": grids.when(found.created_at, now), "ended": grids.when(found.finished_at, now),
    }  # fmt: skip
    for name, value in pairs.items():
        if value:
            screen.line(f"{name}: {value}")
    if told := grids.progress(found):
        screen.line(f"progress: {told}")
    for name, address in found.endpoints.items():
        screen.line(f"endpoint {name}: {address}")
    rows = (
        (each["number"], each.get("site"), each.get("status"), each.get("exit_code"),
         (each.get("reason") or {}).get("message"))
        for each in found.raw.get("attempts") or ()
    )  # fmt: skip
    attempts = grids.Grid.of(("TRY", "SITE", "STATUS", "EXIT CODE", "WHY"), rows)
    if attempts.rows:
        grids.show(screen.out, attempts)


async def _looked_at(serai: Serai, given: str) -> tuple[Job, str | None]:
    found = await serai.job(await session.job_id(serai, given))
    return found, await words_of_site(serai, found)


def timeline(context: typer.Context, job: JobArgument, output: Output = Format.TABLE) -> None:
    """Everything that happened to a job, in order."""
    here = session.of(context)

    async def read(serai: Serai) -> list[Event]:
        return await serai.timeline(await session.job_id(serai, job))

    found = here.ask(read)
    here.screen(output).data([each.raw for each in found], grids.timeline_grid(found))


def why(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="ID|FILE", help="A job, or a job file not yet handed in.")],
    output: Output = Format.TABLE,
) -> None:
    """Why a job is where it is, or where a job file would go: every site's verdict."""
    here = session.of(context)

    async def explain(serai: Serai) -> Json:
        id = await session.job_id(serai, what)
        return await serai.explain(id)

    is_file = what != "last" and (Path(what).suffix in (".yaml", ".yml", ".json") or Path(what).is_file())
    answer = submitting.explain_file(here, what) if is_file else here.ask(explain)
    screen = here.screen(output)
    if screen.json:
        screen.document(answer)
    else:
        submitting.tell_explanation(screen, answer)


def outputs(
    context: typer.Context,
    job: JobArgument,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Write this output to standard output.")] = None,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Save into this folder instead.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """What a job left: the list, one of them (NAME), or all of them saved (--to DIR)."""
    here = session.of(context)
    screen = here.screen(output)

    async def fetch(serai: Serai) -> None:
        id = await session.job_id(serai, job)
        if name is not None and to is None:
            screen.raw(await _content(serai, id, name))
            return
        found = await serai.outputs(id)
        if to is None:
            if found or screen.json:
                screen.data(found, grids.outputs_grid(found))
            else:
                screen.say(_no_outputs(await serai.job(id)))
            return
        declared = ((await serai.job(id)).raw.get("spec") or {}).get("outputs") or ()
        for each in found:
            if not each.get("problem") and name in (None, each["name"]):
                file = Path(keeping.output_name(each["name"], declared)).name
                _save(screen, to / file, await serai.output(id, each["name"]))

    here.ask(fetch)


async def _content(serai: Serai, job_id: str, name: str) -> bytes:
    try:
        return await serai.output(job_id, name)
    except Problem as problem:
        if problem.status == 404:
            problem.then(f"see what it left: `serai outputs {grids.short(job_id)}`")
        raise


def _no_outputs(job: Job) -> str:
    """Why there is nothing to list."""
    if not (job.raw.get("spec") or {}).get("outputs"):
        return "the job declares no outputs; name the files to keep: `outputs:` in its file, or `serai run --keep PATH`"
    return "nothing was kept" if job.ended else f"nothing yet: the job is {job.state}"


def _save(screen: Screen, path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise BadSettings(f"{path}: cannot be written: {error}") from error
    screen.say(f"{path} ({len(content):,} bytes)")


def trace(context: typer.Context, job: JobArgument, output: Output = Format.TABLE) -> None:
    """Every step that the platform took for a job, with its times."""
    here = session.of(context)

    async def read(serai: Serai) -> Json:
        return await serai.trace(await session.job_id(serai, job))

    answer = here.ask(read)
    screen = here.screen(output)
    if not screen.json:
        screen.line(f"trace {answer['trace_id']}")
    screen.data(answer, grids.spans_grid(answer["spans"]))
