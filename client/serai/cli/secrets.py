"""`secrets` and its subcommands. Values come from a file or from standard input, never from the command line, where
other users of the machine could read them.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from serai.cli import session
from serai.cli.screen import Format
from serai.cli.session import Output, Session, examples
from serai.errors import BadJobFile
from serai.grids import Grid

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name, as job files have it.")]
VoOption = Annotated[str | None, typer.Option(help="The VO that it belongs to; else SERAI_VO, or your only one.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=False)
    group.callback(
        invoke_without_command=True,
        epilog=examples(
            "serai secrets", "serai secrets set s3-key --file key.txt", "pass show s3 | serai secrets set s3-key"
        ),
    )(secrets)
    group.command("list", epilog=examples("serai secrets list -o json | jq -r '.[].name'"))(listed)
    group.command("set", epilog=examples("serai secrets set s3-key --file key.txt", "serai secrets set s3-key < key"))(
        put
    )
    group.command(epilog=examples("serai secrets delete s3-key"))(delete)
    app.add_typer(group, name="secrets")


def secrets(context: typer.Context, vo: VoOption = None, output: Output = Format.TABLE) -> None:
    """Your secrets: their names and dates. Values are never shown."""
    if context.invoked_subcommand is None:
        listed(context, vo, output)


def listed(context: typer.Context, vo: VoOption = None, output: Output = Format.TABLE) -> None:
    """Names and dates of your secrets; values are never shown."""
    here = session.of(context)
    found = here.ask(lambda serai: serai.secrets(vo))
    screen = here.screen(output)
    if not found and not screen.json:
        screen.say(f"you have no secrets{f' in {vo}' if vo else ''}; set one: `serai secrets set NAME --file FILE`")
        return
    rows = ((each["vo"], each["name"], each["updated_at"], each.get("used_at") or "never") for each in found)
    screen.data(found, Grid.of(("VO", "NAME", "SET", "USED"), rows))


def put(
    context: typer.Context,
    name: NameArgument,
    file: Annotated[
        Path | None, typer.Option(help="Read the value from this file, byte for byte; else from standard input.")
    ] = None,
    vo: VoOption = None,
) -> None:
    """Set a secret, new or anew. Jobs that start from now on get this value."""
    here = session.of(context)
    value = _from_file(file) if file is not None else _from_standard_input(here)
    chosen = session.vo(here, vo)
    told = here.ask(lambda serai: serai.set_secret(name, value, chosen))
    changed = "changed" if told["created_at"] != told["updated_at"] else "set"
    here.screen(Format.TABLE).say(f"{name} is {changed} in {chosen}; a job gets it by `secrets: [{{name: {name}}}]`")


def delete(context: typer.Context, name: NameArgument, vo: VoOption = None) -> None:
    """Delete a secret. Queued jobs that name it will not start; running ones keep what they have."""
    here = session.of(context)
    chosen = session.vo(here, vo)
    here.ask(lambda serai: serai.delete_secret(name, chosen))
    here.screen(Format.TABLE).say(f"{name} is deleted in {chosen}")


def _from_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadJobFile([f"{path}: {error.strerror}"]) from error


def _from_standard_input(here: Session) -> bytes:
    """All of it, byte for byte; on a terminal one line that is not shown, without its end."""
    if not sys.stdin.isatty():
        return sys.stdin.buffer.read()
    return str(typer.prompt("value (not shown)", hide_input=True, err=True)).encode()
