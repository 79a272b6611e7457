"""`login`, `logout` and `whoami`."""

import asyncio
import sys
from dataclasses import replace
from typing import Annotated

import typer

from serai.cli import session, signing_in
from serai.cli.screen import Format, Screen
from serai.cli.session import Output, Session, examples
from serai.client import Serai
from serai.errors import ClientError
from serai.grids import Grid
from serai.outcomes import Exit
from serai.signin.bearers import one_word
from serai.signin.issuers import is_private
from serai.signin.logins import Login, Logins
from serai.signin.oauth import OAuth
from serai.values import Json

STRONGER = ("SERAI_TOKEN", "BEARER_TOKEN", "BEARER_TOKEN_FILE")
"""Variables that win over a kept sign-in."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        epilog=examples(
            "serai login",
            "serai login --user alice",
            "serai login --no-browser --issuer aai.egi.eu",
            "serai --url https://gateway.example.org login --token-stdin < token",
        )
    )(login)
    app.command(epilog=examples("serai logout", "serai logout --all"))(logout)
    app.command(epilog=examples("serai whoami", "serai whoami -o json | jq .memberships"))(whoami)


def login(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Demo user, where the platform has a development issuer.")] = None,
    issuer: Annotated[
        str | None, typer.Option(help="Where to sign in, if the platform trusts several: name, host or address.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only show the link; open no browser.")] = False,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read an access token of the platform's issuer from standard input.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Sign in with a link and a code, in a browser on any device. The sign-in is kept and renews itself."""
    here = session.of(context)
    screen, url = here.screen(output), here.settings().url
    if not is_private(url):
        screen.say(f"warning: {url} is not encrypted; others on the way can read your token", "yellow")
    if token_stdin:
        found = Login(one_word(sys.stdin.read(), "standard input"))
    else:
        found = asyncio.run(signing_in.signed_in(here, screen, user, issuer, browser=not no_browser))
    me, where = asyncio.run(_kept(here, url, found))
    if screen.json:
        screen.line_of_json(me)
    _welcome(screen, url, me, where)
    asyncio.run(_tell_what_is_missing(here, screen, me))
    for name in STRONGER:
        if here.environment.get(name):
            screen.say(f"{name} is set and wins over this; `unset {name}` to use the new sign-in", "yellow")


async def _kept(here: Session, url: str, found: Login) -> tuple[Json, str]:
    """Keep a sign-in that the platform accepts; who it is, and where the token is now."""
    async with Serai(url, found.token, transport=here.transport, pace=here.pace) as serai:
        me = await serai.whoami()
    logins = here.logins()
    async with logins.lock(here.pace):
        where = logins.keep(url, replace(found, user=_name(me)))
    return me, where


def _welcome(screen: Screen, url: str, me: Json, where: str) -> None:
    vos = ", ".join(f"{each['vo']} ({each['role']})" for each in me["memberships"])
    screen.say(f"signed in at {url} as {_name(me)}; VOs: {vos or 'none'}", "green")
    screen.say(f"kept {where}")


async def _tell_what_is_missing(here: Session, screen: Screen, me: Json) -> None:
    """To somebody who can do nothing here: what is missing, and where it is asked for."""
    if me["memberships"] or me.get("platform_roles"):
        return
    issuer = next((each for each in await here.issuers() if each.url == me["principal"]["issuer"]), None)
    where = f" ({issuer.join_url})" if issuer and issuer.join_url else ""
    screen.say(
        "You are in no VO that this platform knows of, so you cannot hand in jobs yet: ask a manager of your VO to "
        f"take you in{where}, then `serai login` again.", "yellow",
    )  # fmt: skip


def _name(me: Json) -> str:
    return str(me["principal"].get("name") or me["principal"]["subject"])


def logout(
    context: typer.Context,
    everywhere: Annotated[bool, typer.Option("--all", help="At every gateway, not only this one.")] = False,
    output: Output = Format.TABLE,
) -> int:
    """End the kept sign-in: at its issuer and here. Jobs go on."""
    here = session.of(context)
    screen, logins = here.screen(output), here.logins()
    urls = logins.urls() if everywhere else [here.settings().url]
    codes = {url: asyncio.run(_signed_out(here, screen, logins, url)) for url in urls}
    if screen.json:
        screen.document([{"url": url, "ended_at_issuer": code == Exit.OK} for url, code in codes.items()])
    return max(codes.values(), default=int(Exit.OK))


async def _signed_out(here: Session, screen: Screen, logins: Logins, url: str) -> int:
    async with logins.lock(here.pace):
        login = logins.of(url)
        if login is None:
            screen.say(f"nobody was signed in at {url}")
            return Exit.OK
        left = await _revoked(here, login)
        logins.forget(url)
    screen.say(f"signed out of {url}" + (f" here, but {left}" if left else ""), "yellow" if left else "green")
    return Exit.TRY_LATER if left and login.revocation_endpoint else Exit.OK


async def _revoked(here: Session, login: Login) -> str:
    """End it at the issuer; what is left of it otherwise, in words."""
    if login.refresh_token is None:
        return ""
    if login.revocation_endpoint is None:
        return f"{login.issuer} offers no way to end a sign-in: it ends there by itself"
    try:
        async with OAuth(here.transport) as oauth:
            await oauth.revoke(login.issuer, login.revocation_endpoint, login.client_id, login.refresh_token)
    except ClientError as error:
        return f"not at its issuer: {error}; end it on the issuer's own pages"
    return ""


def whoami(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Who you are to the platform, your VOs and what your roles allow."""
    here = session.of(context)
    screen, me = here.screen(output), here.ask(lambda serai: serai.whoami())
    if not screen.json:
        screen.line(f"{_name(me)}, by {me['principal']['issuer']}")
        if me.get("platform_roles"):
            screen.line(f"platform roles: {', '.join(me['platform_roles'])}")
    rows = [(each["vo"], each["role"], ", ".join(each["verbs"])) for each in me["memberships"]]
    if rows or screen.json:
        screen.data(me, Grid.of(("VO", "ROLE", "MAY"), rows))
    asyncio.run(_tell_what_is_missing(here, screen, me))
    if here.token_from:
        screen.say(f"by the token of {here.token_from}")
