"""`serai-platform rabbitmq declare|users|definitions`: what an administrator of the broker does, once.

Added to the command by `services/__main__.py`; docs/rabbitmq.md is its handbook.
"""

import secrets
import shlex
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
import yaml

from shared.errors import Misconfigured
from shared.runtime import logs

if TYPE_CHECKING:
    from shared.adapters.rabbitmq.permissions import Permissions

Run = Callable[[Coroutine[Any, Any, None]], object]

Vhost = Annotated[str, typer.Option(help="Virtual host; empty = `serai`, or `public` for subscribers.")]
ForSubscribers = Annotated[
    bool, typer.Option("--subscribers", help="For readers outside: virtual host `public` and the gateway's user there.")
]
Amqp = Annotated[
    str, typer.Option(envvar=["SERAI_AMQP_URL", "AMQP_URL"], help="RabbitMQ, as a user who may configure.")
]


def add_to(app: typer.Typer, run: Run) -> None:
    """Add the commands of this module."""

    def told(work: Coroutine[Any, Any, None]) -> None:
        logs.configure("error")
        run(work)

    commands = typer.Typer(no_args_is_help=True, help="Prepare a RabbitMQ: topology, users, permissions.")

    @commands.command()
    def declare(amqp_url: Amqp = "") -> None:
        """Make exchanges, queues and streams; changes nothing where they are as they should be."""
        told(declare_at(amqp_url))

    @commands.command()
    def users(vhost: Vhost = "", subscribers: ForSubscribers = False) -> None:
        """Print the rabbitmqctl commands that make the virtual host, every user and its permissions."""
        from shared.adapters.rabbitmq import permissions

        lines = permissions.commands(vhost or _vhost(subscribers), _users(subscribers))
        for before, line in pairwise([[""], *lines]):
            if line[0] == permissions.TOPIC_PERMISSIONS != before[0]:
                print(
                    "# Here: serai-platform rabbitmq declare, as serai-deploy. It makes the exchanges of what follows."
                )
            print(shlex.join(["rabbitmqctl", *line]))

    @commands.command()
    def definitions(
        passwords: Annotated[Path, typer.Option(help="YAML file: a password for each user.")], vhost: Vhost = "",
        subscribers: ForSubscribers = False,
    ) -> None:  # fmt: skip
        """Print the same as a definitions file, with hashed passwords, for `rabbitmqctl import_definitions`."""
        told(print_definitions(vhost or _vhost(subscribers), passwords, _users(subscribers)))

    app.add_typer(commands, name="rabbitmq")


async def declare_at(url: str) -> None:
    """Declare the topology. Raises Misconfigured, Unavailable."""
    from shared.adapters.rabbitmq import declare

    if not url:
        raise Misconfigured("which RabbitMQ? Say --amqp-url amqp://user:password@host:5672/vhost, or set AMQP_URL")
    await declare(url)
    print("declared")


def _vhost(subscribers: bool) -> str:
    return "public" if subscribers else "serai"


def _users(subscribers: bool) -> "tuple[Permissions, ...]":
    from shared.adapters.rabbitmq import permissions

    return (permissions.subscribers(),) if subscribers else permissions.all_permissions()


async def print_definitions(vhost: str, file: Path, users: "tuple[Permissions, ...]") -> None:
    """Print the definitions. Raises Misconfigured when the file does not fit."""
    from shared.adapters.rabbitmq import permissions

    given = _passwords(file)
    if missing := [one.user for one in users if not given.get(one.user)]:
        raise Misconfigured(f"{file} has no password for {', '.join(missing)}; a line each: `{missing[0]}: secret`")
    made = permissions.definitions(vhost, users, given, lambda: secrets.token_bytes(permissions.SALT_BYTES))
    print(orjson.dumps(made, option=orjson.OPT_INDENT_2).decode())


def _passwords(file: Path) -> dict[str, str]:
    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise Misconfigured(f"cannot read {file}: {error}") from error
    if not isinstance(found, dict):
        raise Misconfigured(f"{file}: write one line for each user: `serai-gateway: secret`")
    return {str(user): str(password) for user, password in found.items()}
