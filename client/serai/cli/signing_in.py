"""What a person sees while signing in: which issuer, the link and the code, and that nothing is left to do but wait."""

import sys
import threading
import webbrowser
from collections.abc import Mapping, Sequence
from datetime import timedelta

import typer

from serai.cli.screen import Screen
from serai.cli.session import Session
from serai.errors import NoWayIn
from serai.signin import demo, device_flow
from serai.signin.issuers import Issuer, development_issuer, is_local, listed, named
from serai.signin.logins import Login
from serai.signin.oauth import Endpoints, OAuth, Started, Tokens


async def signed_in(here: Session, screen: Screen, user: str | None, wanted: str | None, *, browser: bool) -> Login:
    """A sign-in as the person chooses it. Raises NoWayIn, Unreachable, IssuerRefused, BadParameter."""
    issuers = await here.issuers()
    issuer = named(issuers, wanted) if wanted else None
    issuer = issuer or (development_issuer(issuers) if user is not None else _chosen(issuers))
    if is_local(issuer.url) and not is_local(here.settings().url):
        raise NoWayIn(f"{issuer} is on this machine and the gateway is not: its tokens are nothing to others").then(
            "check the address: `serai --url URL whoami`"
        )
    if user is not None:
        return await _as_demo_user(here, screen, issuer, user)
    if issuer.client_id:
        return await _by_device_flow(here, screen, issuer, issuer.client_id, browser=browser)
    if issuer.gives_demo_tokens:
        return await _as_demo_user(here, screen, issuer, None)
    raise NoWayIn(f"the platform names no client with which one could sign in at {issuer} from here").then(
        "get an access token there, then: `export SERAI_TOKEN=<token>` or `serai login --token-stdin`"
    )


def _chosen(issuers: Sequence[Issuer]) -> Issuer:
    if not issuers:
        raise NoWayIn("the platform names no issuer where one could sign in").then("ask its operators")
    if len(issuers) == 1:
        return issuers[0]
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"say where to sign in with --issuer; there are: {listed(issuers)}")
    for number, issuer in enumerate(issuers, 1):
        typer.echo(f"  {number}  {issuer}", err=True)
    choice: int = typer.prompt("where do you sign in?", default=1, type=int, err=True)
    if not 1 <= choice <= len(issuers):
        raise typer.BadParameter(f"there is no {choice}; choose 1 to {len(issuers)}")
    return issuers[choice - 1]


# -- device flow --------------------------------------------------------------------------------------------------


async def _by_device_flow(here: Session, screen: Screen, issuer: Issuer, client_id: str, *, browser: bool) -> Login:
    async with OAuth(here.transport) as oauth:
        at = await oauth.discover(issuer.url)
        if at.device is None:
            raise NoWayIn(f"{issuer} offers no device flow, the way to sign in from a command line").then(
                "get an access token there, then: `export SERAI_TOKEN=<token>` or `serai login --token-stdin`"
            )
        started = await oauth.start(at, client_id, issuer.scopes, issuer.audience)
        _show(screen, issuer, started)
        if browser and may_open_browser(here.environment, sys.platform, terminal=sys.stderr.isatty()):
            _open_browser(started.complete_uri or started.uri)
        tokens = await device_flow.wait(
            lambda: oauth.finish(at, client_id, started, issuer.audience), started, client_id, here.pace,
            lambda words: screen.say(words, "yellow"),
        )  # fmt: skip
    return _login(here, tokens, at, client_id, issuer.audience)


def _show(screen: Screen, issuer: Issuer, started: Started) -> None:
    if screen.json:
        screen.line_of_json({
            "issuer": issuer.url, "verification_uri": started.uri, "user_code": started.user_code,
            "verification_uri_complete": started.complete_uri, "expires_in": started.expires_in_s,
        })  # fmt: skip
    minutes = max(1, round(started.expires_in_s / 60))
    screen.say(f"Sign in at {issuer.name}: open this link in a browser, here or on any other device:\n", "")
    screen.say(f"    {started.complete_uri or started.uri}\n", "bold")
    screen.say("See that it shows this code:" if started.complete_uri else "Type this code there:", "")
    screen.say(f"\n    {started.user_code}\n", "bold")
    screen.say(f"Waiting; the code is good for {minutes} min. Ctrl-C gives up.")
    if issuer.gives_demo_tokens:
        screen.say("(A demo user needs no browser: `serai login --user alice`.)")


def _open_browser(link: str) -> None:
    """Beside us: some browsers are only back when they are closed."""
    threading.Thread(target=webbrowser.open, args=(link,), name="browser", daemon=True).start()


def may_open_browser(environment: Mapping[str, str], platform: str, *, terminal: bool) -> bool:
    """Whether somebody sits before it and would see a browser: not over SSH, not in a script, not without a display."""
    if not terminal or environment.get("SSH_CONNECTION"):
        return False
    return platform in ("darwin", "win32") or bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


# -- demo users ---------------------------------------------------------------------------------------------------


async def _as_demo_user(here: Session, screen: Screen, issuer: Issuer, user: str | None) -> Login:
    if not issuer.gives_demo_tokens:
        raise NoWayIn(f"{issuer} has no demo users").then("sign in as yourself: `serai login`")
    users = await demo.demo_users(issuer, here.transport)
    names = [str(each["user"]) for each in users]
    if user is None:
        for each in users:
            screen.say(f"  {each['user']:<10} {demo.about(each)}", "")
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"say who you are: `serai login --user {names[0]}`; users: {', '.join(names)}")
        user = typer.prompt("demo user", default=names[0], err=True)
    if user not in names:
        raise typer.BadParameter(f"there is no demo user '{user}'; there are: {', '.join(names)}")
    tokens = await demo.demo_token(issuer, user, here.transport)
    if tokens.refresh is None or issuer.client_id is None:
        return _login(here, tokens, Endpoints(issuer.url, ""), "", None)
    async with OAuth(here.transport) as oauth:
        return _login(here, tokens, await oauth.discover(issuer.url), issuer.client_id, None)


def _login(here: Session, tokens: Tokens, at: Endpoints, client_id: str, audience: str | None) -> Login:
    life = timedelta(seconds=tokens.expires_in_s) if tokens.expires_in_s else None
    return Login(
        tokens.access, expires_at=here.pace.now() + life if life else None, refresh_token=tokens.refresh,
        issuer=at.issuer, client_id=client_id, audience=audience, token_endpoint=at.token,
        revocation_endpoint=at.revocation,
    )  # fmt: skip
