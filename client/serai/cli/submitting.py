"""`submit`, `run` and `schema`: handing jobs in."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from serai import grids, jobfile, outcomes
from serai.cli import session, tailing
from serai.cli.screen import Format, Screen
from serai.cli.session import Output, Session, examples
from serai.client import Serai
from serai.errors import BadJobFile, Problem
from serai.jobfile import JobFile
from serai.outcomes import Exit
from serai.values import Job, Json

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say where it would go; exit 72 if nowhere.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        epilog=examples(
            "serai submit job.yaml", "serai submit --dry-run job.yaml", "serai submit a.yaml b.yaml --wait",
            "serai wait $(serai submit job.yaml)",
        ),
    )(submit)  # fmt: skip
    app.command(
        epilog=examples(
            "serai run -- python3 -c 'print(6 * 7)'",
            "serai run --cpu 2 --memory 1GiB --file train.py --keep model=model.json -- python3 train.py",
            "serai run -d --site prague -- sleep 60",
        ),
    )(run)
    app.command(epilog=examples("serai schema > job.schema.json", "serai schema | jq .properties.resources"))(schema)


def submit(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Job files (YAML or JSON); `-` reads one.")],
    dry_run: DryRun = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit with the job's outcome.")] = False,
    output: Output = Format.TABLE,
) -> int:
    """Hand in job files. Prints the id of each job; JSON: the job, or a list when several files are given."""
    here = session.of(context)
    screen, loaded = here.screen(output), [_load(file, here.settings().vo) for file in files]
    if dry_run:
        return _dry_run(here, screen, loaded)
    jobs = here.ask(lambda serai: _hand_in(serai, loaded))
    good = [job for job in jobs if isinstance(job, Job)]
    if not wait:
        _tell_ids(screen, good, single=len(loaded) == 1)
    _tell_refused(screen, loaded, jobs)
    if wait and good:
        return tailing.wait_for(here, screen, [job.id for job in good], None) or _worst(jobs)
    return _worst(jobs)


def _load(file: str, vo: str | None) -> JobFile:
    loaded = jobfile.parse(sys.stdin.read(), "standard input", Path()) if file == "-" else jobfile.load(Path(file))
    job = {"vo": vo, **loaded.job} if vo else loaded.job
    return JobFile(loaded.name, job, loaded.tree)


async def _hand_in(serai: Serai, files: Sequence[JobFile]) -> list[Job | Problem]:
    """One job by itself, so that its faults are the command's; several in one request."""
    if len(files) > 1:
        return await serai.submit_many([file.job for file in files])
    try:
        return [await serai.submit(files[0].job)]
    except Problem as problem:
        raise files[0].complaints(problem) or problem from problem


def _tell_ids(screen: Screen, jobs: Sequence[Job], *, single: bool) -> None:
    if screen.json:
        raw = [job.raw for job in jobs]
        screen.document(raw[0] if single and raw else raw)
        return
    for job in jobs:
        screen.line(job.id)
    if jobs:
        follow = f"serai logs -f {grids.short(jobs[-1].id)}"
        screen.say(f"accepted; follow: `{follow}`, wait: `serai wait {grids.short(jobs[-1].id)}`")


def _tell_refused(screen: Screen, files: Sequence[JobFile], jobs: Sequence[Job | Problem]) -> None:
    for file, job in zip(files, jobs, strict=True):
        if isinstance(job, Problem):
            screen.say(str(file.complaints(job) or f"{file.name}: {job}"), "red")


def _worst(jobs: Sequence[Job | Problem]) -> int:
    return next((outcomes.of_error(job) for job in jobs if isinstance(job, Problem)), Exit.OK)


def _dry_run(here: Session, screen: Screen, files: Sequence[JobFile]) -> int:
    fits = True
    answers = []
    for file in files:
        answer = here.ask(lambda serai, file=file: _explained(serai, file))  # type: ignore[misc]
        answers.append(answer)
        fits = fits and any(verdict["code"] == "fits" for verdict in answer.get("verdicts") or ())
        if not screen.json:
            tell_explanation(screen, answer)
    if screen.json:
        screen.document(answers[0] if len(answers) == 1 else answers)
    return Exit.OK if fits else Exit.NOTHING_FITS


async def _explained(serai: Serai, file: JobFile) -> Json:
    try:
        return await serai.dry_run(file.job)
    except Problem as problem:
        raise file.complaints(problem) or problem from problem


def explain_file(here: Session, path: str) -> Json:
    """Where the job of a file would go."""
    file = _load(path, here.settings().vo)
    return here.ask(lambda serai: _explained(serai, file))


def tell_explanation(screen: Screen, answer: Json) -> None:
    """Summary, place in the queue and every site's verdict."""
    screen.line(answer.get("summary") or answer.get("state") or "")
    if answer.get("position") is not None:
        screen.line(f"jobs before it in the queue: {answer['position']}")
    if answer.get("verdicts"):
        if answer.get("state") not in ("queued", "not_submitted", "accepted", None):
            screen.line("the sites, when it was placed or judged last:")
        grids.show(screen.out, grids.verdicts_grid(answer))


def schema(context: typer.Context, output: Output = Format.JSON) -> None:
    """Every field of a job file, as JSON Schema (there is no other form); editors understand it."""
    here = session.of(context)
    here.screen(Format.JSON).document(here.ask(lambda serai: serai.schema()))


def run(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD...", help="The command and its arguments.")],
    name: Annotated[str | None, typer.Option(help="Name of the job; else the command's.")] = None,
    vo: Annotated[str | None, typer.Option(help="VO to run for; else SERAI_VO, or your only one.")] = None,
    image: Annotated[str | None, typer.Option(help="Container image.")] = None,
    cpu: Annotated[float | None, typer.Option(help="Cores.")] = None,
    memory: Annotated[str | None, typer.Option(help="For example 512MiB.")] = None,
    gpus: Annotated[int | None, typer.Option(help="Number of GPUs.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Environment; repeatable.")] = None,
    file: Annotated[list[str] | None, typer.Option(metavar="[PATH=]FILE", help="Input file; repeatable.")] = None,
    keep: Annotated[list[str] | None, typer.Option("--keep", metavar="[NAME=]PATH", help="Output to keep.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Only at this site; repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Label; repeatable.")] = None,
    retries: Annotated[int | None, typer.Option(help="Further attempts after a failure.")] = None,
    max_runtime: Annotated[str | None, typer.Option(help="Stop it after this long, for example 2h.")] = None,
    max_wait: Annotated[str | None, typer.Option(help="Give up if not placed by then, for example 10m.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the id and do not wait.")] = False,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> int:
    """Run a command as a job, show what it prints, and exit as it does. Ctrl-C detaches; the job goes on."""
    here = session.of(context)
    screen = here.screen(output)
    job: Json = {
        "name": name or _name(command[0]), "vo": session.vo(here, vo), "command": command,
        "image": image, "env": session.pairs(env, "--env"), "labels": session.pairs(label, "--label"),
        "files": [_input(word) for word in file or ()], "outputs": [_kept(word) for word in keep or ()],
        "resources": _present({"cpu": cpu, "memory": memory, "gpus": {"count": gpus} if gpus else None}),
        "placement": {"sites": {"allow": site}} if site else None,
        "retries": {"attempts": retries} if retries else None, "max_runtime": max_runtime, "max_wait": max_wait,
    }  # fmt: skip
    made = JobFile("command line", _present(job), None)
    if dry_run:
        return _dry_run(here, screen, [made])
    accepted = here.ask(lambda serai: _hand_in(serai, [made]))[0]
    assert isinstance(accepted, Job)
    if detach:
        _tell_ids(screen, [accepted], single=True)
        return Exit.OK
    return tailing.follow_to_end(here, screen, accepted)


def _name(program: str) -> str:
    name = "".join(char if char.isalnum() or char in "._-" else "-" for char in Path(program).name).lstrip("._-")
    return name[:100] or "job"


def _input(word: str) -> Json:
    path, equals, source = word.partition("=")
    local = Path(source if equals else word)
    try:
        return {"path": path if equals else local.name, "content": jobfile.inline(local)}
    except BadJobFile as bad:
        raise BadJobFile([f"--file {word}: {bad}"]) from bad


def _kept(word: str) -> Json:
    name, equals, path = word.partition("=")
    return {"name": name, "path": path} if equals else {"name": Path(word).name, "path": word}


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, [], {})}
