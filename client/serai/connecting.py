"""A connection as the `serai` command has it: its settings, and the token that it would send.

    async with serai.connect() as here:
        print(await here.whoami())

Programs that bring their own token use `Serai(url, token)`.
"""

import os
from collections.abc import Callable, Mapping

import httpx2

from serai import settings
from serai.client import Serai
from serai.settings import Settings
from serai.signin import bearers
from serai.signin.issuers import Issuer, issuers_of
from serai.signin.logins import Logins
from serai.signin.renewing import KeptLogin
from serai.wire import Bearer, Pace


def connect(url: str | None = None, *, on_break: Callable[[str], None] | None = None) -> Serai:
    """A connection to the gateway at `url`, else to the one of SERAI_URL or `config.yaml`, signed in as `serai login`
    left it (renewed when it must be), or by the environment's token. Raises BadSettings.
    """
    environment, pace = os.environ, Pace()
    chosen = settings.read(environment, url=url)
    bearer, _ = bearer_of(chosen, environment, pace)
    return Serai(chosen.url, bearer, pace=pace, on_break=on_break)


def bearer_of(
    chosen: Settings, environment: Mapping[str, str], pace: Pace, transport: httpx2.AsyncBaseTransport | None = None
) -> tuple[Bearer | None, str]:
    """Where the tokens for a gateway come from, and a word for it, empty for a kept sign-in. Raises BadSettings."""
    given = bearers.given(environment, chosen.url)
    if given is not None:
        return given
    logins = Logins(chosen.folder, keyring=chosen.keyring)
    if logins.of(chosen.url) is not None:
        return KeptLogin(logins, chosen.url, pace, transport), ""
    found = bearers.found(environment, chosen.url, lambda: issuers_at(chosen.url, pace, transport))
    return found or (None, "")


async def issuers_at(url: str, pace: Pace, transport: httpx2.AsyncBaseTransport | None = None) -> list[Issuer]:
    """The issuers that a gateway names."""
    async with Serai(url, transport=transport, pace=pace) as serai:
        return issuers_of(await serai.root())
