"""Which access token goes out with a request. First wins:

1. `SERAI_TOKEN`, a token for this platform;
2. `BEARER_TOKEN`, then the file that `BEARER_TOKEN_FILE` names (WLCG Bearer Token Discovery 1.0);
3. the sign-in that `serai login` keeps for the gateway, renewed when it must be;
4. the files `$XDG_RUNTIME_DIR/bt_u<uid>` and `/tmp/bt_u<uid>` (the discovery's last two places);
5. a running oidc-agent (`OIDC_SOCK`), by `SERAI_OIDC_ACCOUNT` or by the issuers that the gateway names.

Tokens that were only found (2, 4, 5) may be for others too: they are not sent over a network in the clear.
"""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from serai.errors import BadSettings, NoWayIn
from serai.signin import oidc_agent
from serai.signin.issuers import Issuer, is_private
from serai.wire import Bearer

Issuers = Callable[[], Awaitable[Sequence[Issuer]]]


class Given:
    """A token as it was given."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self, refused: str | None = None) -> str | None:
        return self._token


class InFile:
    """A token in a file that somebody else renews (HTCondor, htgettoken), so it is read for every request."""

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source

    async def token(self, refused: str | None = None) -> str | None:
        """Raises BadSettings when there is none."""
        try:
            return one_word(self._path.read_text(encoding="utf-8"), self._source)
        except (OSError, UnicodeDecodeError) as error:
            raise BadSettings(f"{self._source}: {self._path} cannot be read: {error}") from error


class FromAgent:
    """Tokens of oidc-agent, which renews them itself."""

    def __init__(self, socket: str, account: str | None, issuers: Issuers) -> None:
        self._socket = socket
        self._account = account
        self._issuers = issuers

    async def token(self, refused: str | None = None) -> str | None:
        """Raises NoWayIn with the agent's last word when it has none for any of the issuers."""
        if self._account:
            return await oidc_agent.access_token(self._socket, {"account": self._account})
        last = NoWayIn("the platform names no issuer that oidc-agent could be asked for")
        for issuer in await self._issuers():
            audience = {"audience": issuer.audience} if issuer.audience else {}
            try:
                return await oidc_agent.access_token(self._socket, {"issuer": issuer.url, **audience})
            except NoWayIn as error:
                last = error
        raise last


def given(environment: Mapping[str, str], url: str) -> tuple[Bearer, str] | None:
    """A token that the environment names, and where it stands. Raises BadSettings."""
    if token := environment.get("SERAI_TOKEN"):
        return Given(one_word(token, "SERAI_TOKEN")), "SERAI_TOKEN"
    if token := environment.get("BEARER_TOKEN"):
        return Given(one_word(token, _safe("BEARER_TOKEN", url))), "BEARER_TOKEN"
    if path := environment.get("BEARER_TOKEN_FILE"):
        return InFile(Path(path), _safe("BEARER_TOKEN_FILE", url)), "BEARER_TOKEN_FILE"
    return None


def found(environment: Mapping[str, str], url: str, issuers: Issuers) -> tuple[Bearer, str] | None:
    """A token that lies about for anybody who asks for one as this user. Raises BadSettings."""
    for folder in (environment.get("XDG_RUNTIME_DIR"), environment.get("TMPDIR") or "/tmp"):
        path = Path(folder) / f"bt_u{_uid()}" if folder else None
        if path is not None and _mine(path):
            return InFile(path, _safe(str(path), url)), str(path)
    if socket := environment.get("OIDC_SOCK"):
        return FromAgent(_safe(socket, url), environment.get("SERAI_OIDC_ACCOUNT"), issuers), "oidc-agent"
    return None


def one_word(text: str, source: str) -> str:
    """The token in a text: one printable word. Raises BadSettings."""
    word = text.strip()
    if not word or any(char.isspace() or not char.isprintable() for char in word) or not word.isascii():
        raise BadSettings(f"{source} holds no token: a token is one word of printable characters")
    return word


def _safe(source: str, url: str) -> str:
    if not is_private(url):
        raise BadSettings(
            f"the token of {source} is not sent to {url}: others on the way could read it, and it may be for more than "
            "this platform"
        ).then("use the gateway's https address, or put the token into SERAI_TOKEN if you mean it")
    return source


def _mine(path: Path) -> bool:
    """Whether it is there and its owner is who runs this: in /tmp anybody can lay a file under any name."""
    try:
        return path.stat().st_uid == _uid()
    except OSError:
        return False


def _uid() -> int:
    return os.getuid() if hasattr(os, "getuid") else -1
