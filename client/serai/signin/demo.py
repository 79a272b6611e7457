"""Tokens of a development issuer: a demo user's name is all it asks for. Such an issuer runs on this machine only."""

import httpx2

from serai.errors import NoWayIn, Problem
from serai.signin.issuers import Issuer
from serai.signin.oauth import Tokens
from serai.values import Json
from serai.wire import Wire, json_of


async def demo_users(issuer: Issuer, transport: httpx2.AsyncBaseTransport | None = None) -> list[Json]:
    """The demo users: at least `user`, and words about who they are."""
    return list((await _ask(issuer, "GET", "/demo/users", None, transport))["users"])


async def demo_token(issuer: Issuer, user: str, transport: httpx2.AsyncBaseTransport | None = None) -> Tokens:
    """Tokens for a demo user. Raises NoWayIn when there is no such user."""
    try:
        answer = await _ask(issuer, "POST", "/demo/token", {"user": user, "scope": "offline_access"}, transport)
    except Problem as problem:
        raise NoWayIn(f"{issuer.url} gives no token for '{user}': {problem}") from problem
    return Tokens(str(answer["access_token"]), answer.get("refresh_token"), answer.get("expires_in"))


def about(user: Json) -> str:
    """A demo user in a few words."""
    return str(user.get("about") or user.get("name") or "")


async def _ask(
    issuer: Issuer, method: str, path: str, form: dict[str, str] | None, transport: httpx2.AsyncBaseTransport | None
) -> Json:
    wire = Wire(issuer.url, None, transport=transport)
    try:
        return json_of(await wire.request(method, path, form=form, repeatable=True))
    finally:
        await wire.close()
