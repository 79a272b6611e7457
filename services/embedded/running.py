"""`serai-platform up` and `run`: start the embedded platform, tell where it is, stop it in order."""

import asyncio
import json
import signal
import tempfile
from pathlib import Path

from rich.console import Console

from serai import showcase
from services.auth.dev_issuer import DEMO_USERS, demo_token
from services.embedded.platform import Platform, platform
from services.embedded.settings import EmbeddedSettings
from shared.errors import Misconfigured


def fresh_folder() -> Path:
    """A folder for one `run`, kept afterwards so that outputs can be looked at."""
    return Path(tempfile.mkdtemp(prefix="serai-run-"))


def check_folder(examples: Path) -> None:
    """Raises Misconfigured when the folder is not there."""
    if not examples.is_dir():
        raise Misconfigured(f"there is no folder {examples}: run this in the checkout, or say --examples FOLDER")


async def up(settings: EmbeddedSettings) -> None:
    """Run until SIGINT or SIGTERM. First line on standard output: one JSON object; then words for people."""
    async with platform(settings) as running:
        print(json.dumps(addresses(running)), flush=True)
        print(_words(running), flush=True)
        await _until_told_to_stop(running)
        print("Stopping ...", flush=True)


def addresses(running: Platform) -> dict[str, object]:
    """Everything that a program needs to use the platform."""
    return {
        "gateway": running.gateway,
        "issuer": running.issuer,
        "sites": running.sites,
        "users": [user.as_row() for user in DEMO_USERS],
    }


async def run_examples(settings: EmbeddedSettings, examples: Path) -> int:
    """Start, run the example jobs as their users would, stop. 0 only if every one ended as expected."""
    check_folder(examples)
    async with platform(settings) as running:
        tokens = {user.user: await demo_token(running.issuer, user.user) for user in DEMO_USERS}
        code = await showcase.run_examples(running.gateway, tokens, examples, deadline_s=60, console=Console())
    print(f"Databases, logs and the jobs' folders are kept in {settings.data}", flush=True)
    return code


async def _until_told_to_stop(running: Platform) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    waiting = asyncio.create_task(told.wait(), name="until-told")
    await asyncio.wait([waiting, running.running], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.running.done():
        running.running.result()


def _words(running: Platform) -> str:
    users = "\n".join(f"  {user.user:<8} {user.about}" for user in DEMO_USERS)
    sites = "\n".join(f"  {name:<8} {address}" for name, address in running.sites.items())
    return f"""
Serai is running. Stop it with Ctrl-C; started again, it goes on with everything it had.

Gateway   {running.gateway}   (API: {running.gateway}/docs)
Issuer    {running.issuer}   (development only: gives tokens of the demo users to anybody on this machine)
Sites
{sites}
Users
{users}

Next, in another terminal:
  export PATH="$PWD/.venv/bin:$PATH" SERAI_URL={running.gateway}
  serai login --user alice
  serai run --vo vo.climate.example -- echo hello
  serai jobs
"""
