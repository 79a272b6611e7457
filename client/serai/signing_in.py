"""Signing in: which issuers the platform trusts, and a token from the development issuer.

Only the development issuer (a platform that runs on this machine) gives tokens for the asking. For all others the
token comes from the issuer itself and is handed over in SERAI_TOKEN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from serai.errors import NoWayIn, Problem
from serai.values import Json
from serai.wire import Wire, json_of

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Issuer:
    """`demo_token_endpoint` is set of a development issuer only."""

    url: str
    name: str
    demo_token_endpoint: str | None = None

    @property
    def local(self) -> bool:
        """Whether it gives tokens for the asking, and runs on this machine, as such an issuer must."""
        return self.demo_token_endpoint is not None and urlsplit(self.url).hostname in LOOPBACK


@dataclass(frozen=True, slots=True)
class DemoToken:
    """`expires_in_s` counts from now."""

    user: str
    token: str
    expires_in_s: float | None


def issuers_of(root: Json) -> list[Issuer]:
    """The issuers that a gateway's `GET /v1` names."""
    found = [item if isinstance(item, dict) else {"issuer": item} for item in root.get("issuers") or ()]
    return [
        Issuer(
            str(item["issuer"]).rstrip("/"), str(item.get("name") or item["issuer"]), item.get("demo_token_endpoint")
        )
        for item in found
    ]


def development_issuer(issuers: Sequence[Issuer]) -> Issuer:
    """The issuer that gives demo tokens. Raises NoWayIn with what to do instead."""
    local = next((issuer for issuer in issuers if issuer.local), None)
    if local is None:
        names = ", ".join(f"{issuer.name} ({issuer.url})" for issuer in issuers) or "none"
        raise NoWayIn(
            f"this platform takes tokens of: {names}.\nGet an access token there, then: export SERAI_TOKEN=<token>"
        )
    return local


async def demo_users(issuer: Issuer, transport: httpx2.AsyncBaseTransport | None = None) -> list[Json]:
    """The demo users: at least `user`, and words about who they are."""
    return list((await _ask(issuer, "GET", "/demo/users", None, transport))["users"])


async def demo_token(issuer: Issuer, user: str, transport: httpx2.AsyncBaseTransport | None = None) -> DemoToken:
    """A token for a demo user. Raises NoWayIn when there is no such user."""
    try:
        answer = await _ask(issuer, "POST", "/demo/token", {"user": user}, transport)
    except Problem as problem:
        raise NoWayIn(f"{issuer.url} gives no token for '{user}': {problem}") from problem
    return DemoToken(user, str(answer["access_token"]), answer.get("expires_in"))


async def _ask(
    issuer: Issuer, method: str, path: str, form: dict[str, str] | None, transport: httpx2.AsyncBaseTransport | None
) -> Json:
    wire = Wire(issuer.url, None, transport=transport)
    try:
        return json_of(await wire.request(method, path, form=form, repeatable=True))
    finally:
        await wire.close()


def is_local(url: str) -> bool:
    """Whether an address is on this machine, so that no network carries what is sent there."""
    return urlsplit(url).hostname in LOOPBACK


def about(user: Json) -> str:
    """A demo user in a few words."""
    return str(user.get("about") or user.get("name") or "")
