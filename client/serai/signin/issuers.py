"""The issuers that a gateway's `GET /v1` names, and the choice among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from serai.errors import NoWayIn
from serai.values import Json

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Issuer:
    """`url` is the issuer string to the character, a final slash included. `client_id` is set where people can sign in
    by device flow, `demo_token_endpoint` of a development issuer only, `join_url` where memberships are asked for.
    """

    url: str
    name: str
    client_id: str | None = None
    scopes: tuple[str, ...] = ("openid",)
    audience: str | None = None
    join_url: str | None = None
    demo_token_endpoint: str | None = None

    @property
    def gives_demo_tokens(self) -> bool:
        """Whether it gives tokens for the asking, and runs on this machine, as such an issuer must."""
        return self.demo_token_endpoint is not None and is_local(self.url)

    def __str__(self) -> str:
        return self.url if self.name == self.url else f"{self.name} ({self.url})"


def issuers_of(root: Json) -> list[Issuer]:
    """The issuers of `GET /v1`; an older gateway names their addresses only."""
    found = [item if isinstance(item, dict) else {"issuer": item} for item in root.get("issuers") or ()]
    return [
        Issuer(
            str(item["issuer"]), str(item.get("name") or item["issuer"]), item.get("client_id"),
            tuple(item.get("scopes") or ("openid",)), item.get("audience"), item.get("join_url"),
            item.get("demo_token_endpoint"),
        )
        for item in found
    ]  # fmt: skip


def named(issuers: Sequence[Issuer], wanted: str) -> Issuer:
    """The one whose address, host or name is `wanted`. Raises NoWayIn with those there are."""
    asked = wanted.rstrip("/").casefold()
    for issuer in issuers:
        if asked in (issuer.url.rstrip("/").casefold(), issuer.name.casefold(), urlsplit(issuer.url).netloc.casefold()):
            return issuer
    raise NoWayIn(f"this platform takes no tokens of '{wanted}'; it takes those of: {listed(issuers)}")


def development_issuer(issuers: Sequence[Issuer]) -> Issuer:
    """The issuer that gives demo tokens. Raises NoWayIn."""
    local = next((issuer for issuer in issuers if issuer.gives_demo_tokens), None)
    if local is None:
        raise NoWayIn(f"this platform has no demo users; it takes tokens of: {listed(issuers)}").then(
            "sign in as yourself: `serai login`"
        )
    return local


def listed(issuers: Sequence[Issuer]) -> str:
    """All of them, for a sentence."""
    return ", ".join(map(str, issuers)) or "none"


def is_local(url: str) -> bool:
    """Whether an address is on this machine, so that no network carries what is sent there."""
    return urlsplit(url).hostname in LOOPBACK


def is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent there: TLS, or this machine."""
    return url.startswith("https://") or (url.startswith("http://") and is_local(url))
