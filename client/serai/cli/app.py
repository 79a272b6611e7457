"""The command's table of contents: global options, and every subcommand by name."""

from importlib.metadata import version
from typing import Annotated

import typer

from serai import outcomes
from serai.cli import access, following, looking, secrets, session, sites, submitting, subscriptions

EPILOG = "Exit codes:\n\n" + "\n\n".join(
    f"{int(code)}  {meaning}" for code, meaning in outcomes.MEANINGS.items()
) + (
    "\n\nA failed job ends `run` and `wait` with its own exit code; with 1 where it has none, or where its own is"
    " one of those above. The true one is always told on standard error and in `-o json`."
)  # fmt: skip

app = typer.Typer(name="serai", no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"serai {version('serai')}")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def root(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option("--url", help="Address of the platform's gateway; else SERAI_URL.", metavar="URL")
    ] = None,
    tell_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Hand in jobs to a Serai platform and follow them.

    Data goes to standard output, talk to standard error. Settings: SERAI_URL, SERAI_TOKEN, SERAI_VO, or `config.yaml`
    with `url:` and `vo:` in the settings folder (SERAI_CONFIG_DIR, else ~/.config/serai). Tokens: `serai login`, else
    those of BEARER_TOKEN, BEARER_TOKEN_FILE or a running oidc-agent.
    """
    session.of(context).asked_url = url


access.add_to(app)
submitting.add_to(app)
following.add_to(app)
looking.add_to(app)
sites.add_to(app)
secrets.add_to(app)
subscriptions.add_to(app)
