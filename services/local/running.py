"""`serai-platform up-real` and `run-real`: the platform on real parts, told where it is, ended in order."""

import asyncio
import json
import sys
from pathlib import Path

from rich.console import Console

from serai import showcase
from services.auth.dev_issuer import DEMO_USERS, demo_token
from services.embedded.running import EXAMPLES_END_S, check_examples
from services.embedded.stopping import Stopping
from services.local.platform import LocalPlatform, local_platform
from services.local.settings import LocalSettings


async def up(settings: LocalSettings) -> int:
    """Run until SIGINT or SIGTERM. First line on standard output: one JSON object; then words for people."""
    with Stopping() as stopping:
        try:
            async with local_platform(settings) as running:
                stopping.started()
                print(json.dumps(addresses(running)), flush=True)
                print(_words(running), flush=True)
                await stopping.told()
                print("Stopping ...", flush=True)
        except asyncio.CancelledError:
            if not stopping.asked:
                raise
            print("Stopped before it was ready.", file=sys.stderr)
            return stopping.exit_code
    print("Stopped.", flush=True)
    return 0


async def run_examples(settings: LocalSettings, examples: Path, keep: Path) -> int:
    """Start, run the example jobs, save what they left in `keep`, stop. 0 only if every one ended as expected."""
    check_examples(examples)
    with Stopping() as stopping:
        try:
            console = Console(highlight=False, markup=False)
            console.print("Starting real parts and the services as processes ...", style="dim")
            async with local_platform(settings) as running:
                console.print(_parts(running), style="dim")
                tokens = {user.user: await demo_token(running.issuer, user.user) for user in DEMO_USERS}
                return await showcase.run_examples(
                    running.gateway, tokens, examples, deadline_s=EXAMPLES_END_S, console=console, keep=keep
                )
        except asyncio.CancelledError:
            if not stopping.asked:
                raise
            return stopping.exit_code


def addresses(running: LocalPlatform) -> dict[str, object]:
    """Everything that a program needs to use the platform; `processes` are the ids of the services' processes."""
    return {
        "gateway": running.gateway,
        "issuer": running.issuer,
        "sites": running.sites,
        "users": [user.as_row() for user in DEMO_USERS],
        "services": running.addresses,
        "parts": running.parts.addresses,
        "processes": {
            name: kept.process.pid for name, kept in running.supervisor.kept.items() if kept.process is not None
        },
        "folder": str(running.folder),
    }


def _parts(running: LocalPlatform) -> str:
    lines = [f"  {name:<12} {address}" for name, address in running.parts.addresses.items()]
    lines += [f"  {'site ' + name:<12} {address}" for name, address in running.sites.items()]
    for service, urls in running.addresses.items():
        lines.append(f"  {service:<12} {', '.join(urls)}")
    return "\n".join(lines)


def _words(running: LocalPlatform) -> str:
    return f"""
Serai is running on real parts. Stop it with Ctrl-C: the parts are thrown away, the logs stay in {running.folder}/logs.

{_parts(running)}

Next, in another terminal:
  export PATH="$PWD/.venv/bin:$PATH" SERAI_URL={running.gateway}
  serai login --user alice
  serai run --vo vo.climate.example -- echo hello
"""
