"""`login` and `whoami`."""

import asyncio
import sys
from typing import Annotated

import typer

from serai import settings, signing_in
from serai.cli import session
from serai.cli.screen import Format, Screen
from serai.cli.session import Output, Session, examples
from serai.client import Serai
from serai.errors import NoWayIn
from serai.grids import Grid
from serai.settings import TOKEN_FILE, TokenFile
from serai.signing_in import DemoToken
from serai.values import Json


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        epilog=examples(
            "serai login", "serai login --user alice", "serai --url https://gateway.example.org login --token-stdin"
        )
    )(login)
    app.command(epilog=examples("serai whoami", "serai whoami -o json | jq .memberships"))(whoami)


def login(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Demo user, where the platform has a development issuer.")] = None,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read an access token of the platform's issuer from standard input.")
    ] = False,
) -> None:
    """Sign in and keep the token in a file that only you can read."""
    here, screen = session.of(context), session.of(context).screen(Format.TABLE)
    chosen = here.settings()
    if chosen.url.startswith("http://") and not signing_in.is_local(chosen.url):
        screen.say(f"warning: {chosen.url} is not encrypted; others on the way can read your token", "yellow")
    if token_stdin:
        found = DemoToken("", sys.stdin.read().strip(), None)
        if not found.token:
            raise NoWayIn("standard input held no token")
    else:
        found = asyncio.run(_demo(here, chosen.url, user, screen))
    me = asyncio.run(_me(here, chosen.url, found.token))
    name = me["principal"].get("name") or me["principal"]["subject"]
    file = TokenFile(chosen.folder / TOKEN_FILE)
    file.keep(chosen.url, found.token, user=name, expires_in_s=found.expires_in_s, now=settings.now())
    vos = ", ".join(f"{each['vo']} ({each['role']})" for each in me["memberships"]) or "none"
    screen.say(f"signed in at {chosen.url} as {name}; VOs: {vos}", "green")
    if here.environment.get("SERAI_TOKEN"):
        screen.say("SERAI_TOKEN is set and wins over this; `unset SERAI_TOKEN` to use the new token", "yellow")


async def _demo(here: Session, url: str, user: str | None, screen: Screen) -> DemoToken:
    async with Serai(url, transport=here.transport) as serai:
        issuers = signing_in.issuers_of(await serai.root())
    issuer = signing_in.development_issuer(issuers)
    users = await signing_in.demo_users(issuer, here.transport)
    names = [str(each["user"]) for each in users]
    if user is None:
        for each in users:
            screen.say(f"  {each['user']:<10} {signing_in.about(each)}", "")
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"say who you are: `serai login --user {names[0]}`; users: {', '.join(names)}")
        user = typer.prompt("demo user", default=names[0], err=True)
    if user not in names:
        raise typer.BadParameter(f"there is no demo user '{user}'; there are: {', '.join(names)}")
    return await signing_in.demo_token(issuer, user, here.transport)


async def _me(here: Session, url: str, token: str) -> Json:
    async with Serai(url, token, transport=here.transport) as serai:
        return await serai.whoami()


def whoami(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Who you are to the platform, your VOs and what your roles allow."""
    here = session.of(context)
    screen, me = here.screen(output), here.ask(lambda serai: serai.whoami())
    if not screen.json:
        screen.line(f"{me['principal'].get('name') or me['principal']['subject']}, by {me['principal']['issuer']}")
        if me.get("platform_roles"):
            screen.line(f"platform roles: {', '.join(me['platform_roles'])}")
    rows = ((each["vo"], each["role"], ", ".join(each["verbs"])) for each in me["memberships"])
    screen.data(me, Grid.of(("VO", "ROLE", "MAY"), rows))
