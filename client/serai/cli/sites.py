"""`sites` and its operators' subcommands."""

from collections.abc import Awaitable
from typing import Annotated

import typer

from serai import grids
from serai.cli import session
from serai.cli.screen import Format
from serai.cli.session import Output, examples
from serai.errors import Problem
from serai.values import Json

SiteArgument = Annotated[str, typer.Argument(metavar="NAME", help="The site's name.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=False)
    group.callback(
        invoke_without_command=True,
        epilog=examples(
            "serai sites", "serai sites -o json | jq '.[].name'", "serai sites cordon lyon --reason moving"
        ),
    )(sites)
    group.command(epilog=examples('serai sites cordon lyon --reason "new cooling"'))(cordon)
    group.command(epilog=examples("serai sites uncordon lyon"))(uncordon)
    app.add_typer(group, name="sites")


def sites(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Sites: how they are, and what is free there."""
    if context.invoked_subcommand is not None:
        return
    here = session.of(context)
    answer = here.ask(lambda serai: serai.sites())
    here.screen(output).data(answer, grids.sites_grid(answer))


def cordon(
    context: typer.Context,
    name: SiteArgument,
    reason: Annotated[str, typer.Option(help="Shown to everybody who asks why a job does not go there.")] = "",
) -> None:
    """Place nothing more at a site (operators); what runs there goes on."""
    here = session.of(context)
    here.ask(lambda serai: _at(name, serai.cordon(name, reason)))
    here.screen(Format.TABLE).say(f"{name} takes no further jobs; undo: `serai sites uncordon {name}`")


def uncordon(context: typer.Context, name: SiteArgument) -> None:
    """Place at a site again (operators)."""
    here = session.of(context)
    here.ask(lambda serai: _at(name, serai.uncordon(name)))
    here.screen(Format.TABLE).say(f"{name} takes jobs again")


async def _at(name: str, asked: Awaitable[Json]) -> Json:
    try:
        return await asked
    except Problem as problem:
        if problem.status == 404:
            problem.then("see which sites there are: `serai sites`")
        raise
