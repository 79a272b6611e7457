"""`serai-platform`: the operators' command. It chooses what to run; everything else is in the services."""

import asyncio
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from services import databases, dead_letters, namespaces, rabbitmq
from services.auth import operating
from shared.errors import Misconfigured, SeraiError
from shared.runtime import logs

EXIT_CODES = (
    "Exit codes: 0 it worked; 1 it failed (`run`: an example did not end as expected); 2 the command line is wrong; "
    "78 settings, files or the machine are not as needed; 130 and 143 ended by Ctrl-C or SIGTERM before it was done."
)

_LOOKUPS_AT_ONCE = 16
"""Names looked up at the same time. One that no server answers for takes its place for ten seconds; the others, as the
database's and Consul's, must not wait behind it."""

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__, epilog=EXIT_CODES
)

Data = Annotated[
    Path, typer.Option(envvar="SERAI_UP_DATA", help="Folder for databases, keys, logs and the sites' own state.")
]
Port = Annotated[int, typer.Option(envvar="SERAI_UP_PORT", help="Port of the gateway; the next free one if taken.")]
Bus = Annotated[
    str,
    typer.Option(envvar="SERAI_UP_BUS", help="embedded, or amqp: a RabbitMQ at AMQP_URL, or Debian's, started for it."),
]
Nomad = Annotated[
    str,
    typer.Option(envvar="SERAI_UP_NOMAD", help="embedded, auto (a real Nomad if one is found), or a binary's path."),
]
Sites = Annotated[
    Path | None, typer.Option(envvar="SERAI_UP_SITES", help="YAML file of sites instead of the three built-in ones.")
]

RealData = Annotated[Path | None, typer.Option(help="New folder for the parts' data and logs; else a fresh one.")]
Copies = Annotated[int, typer.Option(help="Copies of each service (more than one needs PostgreSQL).")]


@app.command()
def up(
    port: Port = 8080, data: Data = Path(".serai"), sites: Sites = None, bus: Bus = "embedded",
    nomad: Nomad = "embedded", mock: bool = False, log_level: str = "warning",
) -> None:  # fmt: skip
    """Start the whole platform in one process and leave it running; Ctrl-C stops it, a new start goes on."""
    from services.embedded import running

    settings = _embedded(port=port, data=data, sites=sites, bus=bus, nomad=nomad, mock=mock, log_level=log_level)
    raise typer.Exit(_run(running.up(settings)))


@app.command()
def run(
    examples: Annotated[Path, typer.Option(help="Folder of example jobs.")] = Path("examples"),
    port: Port = 8080,
    data: Annotated[Path | None, typer.Option(help="Folder of the platform's own data; else a fresh one.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for the jobs' outputs, logs and timelines; else .serai-runs/<time>.")
    ] = None,
    sites: Sites = None, bus: Bus = "embedded", nomad: Nomad = "embedded", log_level: str = "error",
) -> None:  # fmt: skip
    """Start the platform, run the example jobs, show them, stop; exit 0 only if each ended as expected."""
    from services.embedded import running

    results = keep or running.fresh_folder(datetime.now())
    folder = data or results / running.PLATFORM
    settings = _embedded(port=port, data=folder, sites=sites, bus=bus, nomad=nomad, log_level=log_level, end_tasks=True)
    raise typer.Exit(_run(running.run_examples(settings, examples, results)))


@app.command("up-real")
def up_real(
    port: Port = 8080, data: RealData = None, sites: Sites = None, nomad: Nomad = "auto", copies: Copies = 1,
    log_level: str = "info",
) -> None:  # fmt: skip
    """Start the platform on real parts (RabbitMQ, PostgreSQL, Consul, Nomad), each service a process of its own."""
    from services.local import running

    settings = _local(port=port, data=data, sites=sites, nomad=nomad, copies=copies, log_level=log_level)
    raise typer.Exit(_run(running.up(settings)))


@app.command("run-real")
def run_real(
    examples: Annotated[Path, typer.Option(help="Folder of example jobs.")] = Path("examples"),
    port: Port = 8080, data: RealData = None, sites: Sites = None, nomad: Nomad = "auto", copies: Copies = 1,
    log_level: str = "info",
) -> None:  # fmt: skip
    """Run the example jobs on real parts; exit 0 only if each ended as expected."""
    from services.embedded.running import fresh_folder
    from services.local import running

    settings = _local(port=port, data=data, sites=sites, nomad=nomad, copies=copies, log_level=log_level)
    raise typer.Exit(_run(running.run_examples(settings, examples, fresh_folder(datetime.now()))))


@app.command()
def gateway() -> None:
    """Run the gateway alone, on real parts; settings from the environment (docs/settings.md)."""
    from services.gateway.process import work

    _alone("gateway", work)


@app.command()
def scheduler() -> None:
    """Run the scheduler alone, on real parts."""
    from services.scheduler.process import work

    _alone("scheduler", work)


@app.command()
def monitor() -> None:
    """Run the monitor alone, on real parts."""
    from services.monitor.process import work

    _alone("monitor", work)


@app.command()
def auth() -> None:
    """Run auth alone, on real parts."""
    from services.auth.process import work

    _alone("auth", work)


@app.command()
def fault(
    site: Annotated[str, typer.Argument(help="Name of a site of the running embedded platform.")] = "",
    kind: Annotated[str, typer.Argument(help="What to break; leave out for the list.")] = "",
    arguments: Annotated[list[str] | None, typer.Argument(help="name=value of the fault.")] = None,
    data: Data = Path(".serai"),
) -> None:
    """Break a site of the running embedded platform on purpose, to see what happens."""
    from services.embedded import faulting

    _run(faulting.inject(data, site, kind, arguments or []))


@app.command()
def openapi() -> None:
    """Print the gateway's OpenAPI document."""
    from services import documents

    print(documents.openapi(), end="")


@app.command()
def asyncapi() -> None:
    """Print the AsyncAPI document of commands and events."""
    from services import documents

    print(documents.asyncapi(), end="")


@app.command("service-keys")
def service_keys() -> None:
    """Make a key for each service, by which they know each other: lines for their environments."""
    from shared.runtime.service_identity import SERVICES, made_key

    pairs = {service: made_key() for service in SERVICES}
    print("# The same for every service:")
    print("SERAI_SERVICE_KEYS=" + ",".join(f"{service}={public}" for service, (_, public) in pairs.items()))
    for service, (private, _) in pairs.items():
        print(f"# Secret, for {service} alone:\nSERAI_SERVICE_KEY={private}")


@app.command()
def settings() -> None:
    """Print every setting with its default, unit and reason."""
    from services import documents

    print(documents.settings(), end="")


@app.command()
def docs(
    folder: Annotated[Path, typer.Argument(help="Folder of the documentation.")] = Path("docs"),
    check: Annotated[bool, typer.Option(help="Write nothing; fail when something would change.")] = False,
) -> None:
    """Write the generated diagrams and references."""
    from services import documents

    changed = documents.write(folder, check=check)
    for name in changed:
        print(f"{'out of date' if check else 'written'}: {name}")
    if check and changed:
        print("Run `make docs` and commit what it writes.", file=sys.stderr)
        raise typer.Exit(1)


operating.add_to(app)
app.add_typer(databases.app, name="db")


def _local(*, log_level: str, **given: Any) -> Any:
    from services.local.settings import LocalSettings

    logs.configure("warning")
    return _checked(LocalSettings, given | {"log_level": _level(log_level)})


def _level(word: str) -> Any:
    if word not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"log level {word!r}: choose debug, info, warning or error")
    return word


def _alone(service: str, work: Any) -> None:
    from shared.processes import backing

    _run(backing.run(service, work))


def _embedded(**given: Any) -> Any:
    from services.embedded.settings import EmbeddedSettings

    settings = _checked(EmbeddedSettings, {name: value for name, value in given.items() if value is not None})
    logs.configure(settings.log_level)
    return settings


def _checked(kind: Any, given: dict[str, Any]) -> Any:
    """Settings of options; a wrong one is the command line's fault and named."""
    from pydantic import ValidationError

    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _run(work: Any) -> int:
    """Run the loop; an error that we know is one sentence on standard error and exit code 1."""
    import uvloop

    # Half of libuv's threads look up names: two, if nothing is said.
    os.environ.setdefault("UV_THREADPOOL_SIZE", str(2 * _LOOKUPS_AT_ONCE))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work) or 0
    except Misconfigured as error:
        print(f"serai-platform: {error.what}", file=sys.stderr)
        raise typer.Exit(78) from None
    except SeraiError as error:
        print(f"serai-platform: {error.what}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


dead_letters.add_to(app, _run)
rabbitmq.add_to(app, _run)
namespaces.add_to(app)


def main() -> None:
    """The console command."""
    app()


if __name__ == "__main__":
    main()
