"""`serai-platform up` and `run`: start the embedded platform, tell where it is, stop it in order."""

import asyncio
import json
import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console

from serai import showcase
from serai.errors import ClientError
from services.auth.dev_issuer import DEMO_USERS, demo_token
from services.embedded.platform import Platform, platform
from services.embedded.settings import EmbeddedSettings
from services.embedded.stopping import Stopping
from shared.adapters.nomad.local_agent import LocalRegion
from shared.errors import Misconfigured
from shared.runtime import garbage

RUNS = Path(".serai-runs")
PLATFORM = "platform"
"""Folder of the platform's own data, among those of a run's jobs."""

EXAMPLES_END_S = 60.0
"""Seconds that all examples have together; they take about six."""


def fresh_folder(now: datetime, runs: Path = RUNS) -> Path:
    """A folder for one `run`, named after its time; kept afterwards so that outputs can be looked at."""
    name = now.strftime("%Y-%m-%d_%H-%M-%S")
    return next(
        path for number in range(1, 1000) if not (path := runs / (name if number == 1 else f"{name}_{number}")).exists()
    )


def check_examples(examples: Path) -> None:
    """Raises Misconfigured when the folder is not there, or when a job or an expectation in it is wrong."""
    if not examples.is_dir():
        raise Misconfigured(f"there is no folder {examples}: run this in the checkout, or say --examples FOLDER")
    try:
        showcase.load(examples)
    except ClientError as error:
        raise Misconfigured(f"the examples cannot be run:\n{error}") from error


_REAL = """   (real Nomads on loopback, plain HTTP and no tokens: whoever is on this machine may use them, as the issuer
          gives anybody here a token anyway; `make up-real` runs them with TLS and ACLs)"""


async def up(settings: EmbeddedSettings) -> int:
    """Run until SIGINT or SIGTERM. First line on standard output: one JSON object; then words for people."""
    with Stopping() as stopping:
        try:
            async with platform(settings) as running:
                stopping.started()
                print(json.dumps(addresses(running)), flush=True)
                print(_words(running), flush=True)
                garbage.settle()
                await _until_told_to_stop(running, stopping)
                print("Stopping ...", flush=True)
        except asyncio.CancelledError:
            if not stopping.asked:
                raise
            print("Stopped before it was ready.", file=sys.stderr)
            return stopping.exit_code
    print("Stopped.", flush=True)
    return 0


def addresses(running: Platform) -> dict[str, object]:
    """Everything that a program needs to use the platform."""
    return {
        "gateway": running.gateway,
        "issuer": running.issuer,
        "sites": running.sites,
        "users": [user.as_row() for user in DEMO_USERS],
    }


async def run_examples(settings: EmbeddedSettings, examples: Path, keep: Path) -> int:
    """Start, run the example jobs as their users would, save what they left in `keep`, stop.

    0 only if every one ended as expected. Ctrl-C and SIGTERM end it early, with 130 and 143.
    """
    check_examples(examples)
    with Stopping() as stopping:
        try:
            code = await _run_examples(settings, examples, keep)
        except asyncio.CancelledError:
            if not stopping.asked:
                raise
            print(f"Stopped before all examples had ended; what there is so far is in {keep}", file=sys.stderr)
            return stopping.exit_code
    print(f"Outputs, logs and timelines are in {keep}, the platform's own data in {settings.data}", flush=True)
    return code


async def _run_examples(settings: EmbeddedSettings, examples: Path, keep: Path) -> int:
    console = Console(highlight=False, markup=False)
    console.print(f"Starting the platform ({settings.bus} bus) ...", style="dim")
    async with platform(settings) as running:
        console.print(f"{', '.join(running.sites)} are up; gateway at {running.gateway}", style="dim")
        tokens = {user.user: await demo_token(running.issuer, user.user) for user in DEMO_USERS}
        return await showcase.run_examples(
            running.gateway, tokens, examples, deadline_s=EXAMPLES_END_S, console=console, keep=keep
        )


async def _until_told_to_stop(running: Platform, stopping: Stopping) -> None:
    """Return when a signal came. Raises the failure of a service that ended by itself."""
    waiting = asyncio.create_task(stopping.told(), name="until-told")
    try:
        await asyncio.wait([waiting, running.running], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if running.running.done():
        running.running.result()


def _words(running: Platform) -> str:
    users = "\n".join(f"  {user.user:<8} {user.about}" for user in DEMO_USERS)
    sites = "\n".join(f"  {name:<8} {address}" for name, address in running.sites.items())
    kind = _REAL if any(isinstance(agent, LocalRegion) for agent in running.agents.values()) else ""
    return f"""
Serai is running. Stop it with Ctrl-C; started again, it goes on with everything it had.

Gateway   {running.gateway}   (API: {running.gateway}/docs)
Issuer    {running.issuer}   (development only: gives tokens of the demo users to anybody on this machine)
Sites{kind}
{sites}
Users
{users}

Next, in another terminal:
  export PATH="$PWD/.venv/bin:$PATH" SERAI_URL={running.gateway}
  serai login --user alice
  serai run --vo vo.climate.example -- echo hello
  serai jobs
"""
