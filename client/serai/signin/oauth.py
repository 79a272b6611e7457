"""Speaking OAuth 2 with an issuer as a public client: discovery, token requests, revocation. Nothing is sent twice.

Sources: OpenID Connect Discovery 1.0 and RFC 8414 (discovery), RFC 6749 (tokens, refresh, errors), RFC 7009
(revocation), RFC 8628 (device authorisation), RFC 8707 (`resource`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2

from serai.errors import IssuerRefused, NotUnderstood, Unreachable
from serai.signin.issuers import is_private
from serai.values import Json
from serai.wire import unreachable

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
TIMEOUT_S: Final = 15.0
_TEMPORARY: Final = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where an issuer does what; None for what it does not offer."""

    issuer: str
    token: str
    device: str | None = None
    revocation: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token request brought; `expires_in_s` counts from its answer, None where the issuer does not say."""

    access: str
    refresh: str | None = None
    expires_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A sign-in that waits for a person: `complete_uri` has the code in it, where the issuer offers that."""

    device_code: str
    user_code: str
    uri: str
    complete_uri: str | None
    expires_in_s: float
    interval_s: float


class OAuth:
    """A conversation with issuers; use as an async context manager. Every answer has 15 seconds."""

    def __init__(self, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._http = httpx2.AsyncClient(
            transport=transport, timeout=TIMEOUT_S, follow_redirects=False, trust_env=transport is None,
            headers={"Accept": "application/json", "User-Agent": "serai-client"},
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def discover(self, issuer: str) -> Endpoints:
        """What the issuer offers. Raises Unreachable, NotUnderstood."""
        address = issuer.rstrip("/") + "/.well-known/openid-configuration"
        if not is_private(address):
            raise NotUnderstood(f"the issuer {issuer} is not at an https address; nothing is sent there")
        answer = await self._send(issuer, "GET", address)
        document = _object(answer) if answer.is_success else None
        if document is None:
            raise NotUnderstood(f"{address} answered HTTP {answer.status_code}, and not with what an issuer offers")
        if document.get("issuer") != issuer:
            raise NotUnderstood(f"{address} names another issuer: {_plain(document.get('issuer'))}")
        return Endpoints(
            issuer,
            _address(document, "token_endpoint", issuer) or _missing(issuer, "token_endpoint"),
            _address(document, "device_authorization_endpoint", issuer),
            _address(document, "revocation_endpoint", issuer),
        )  # fmt: skip

    async def start(self, at: Endpoints, client_id: str, scopes: tuple[str, ...], audience: str | None) -> Started:
        """Begin a device flow (RFC 8628, 3.1). Raises IssuerRefused, Unreachable, NotUnderstood."""
        form = {"client_id": client_id, "scope": " ".join(scopes), **for_audience(audience)}
        said = await self._asked(at.issuer, at.device or _missing(at.issuer, "device_authorization_endpoint"), form)
        try:
            return Started(
                str(said["device_code"]), _plain(said["user_code"]), _link(said["verification_uri"], at.issuer),
                _link(said["verification_uri_complete"], at.issuer) if "verification_uri_complete" in said else None,
                float(said["expires_in"]), max(1.0, float(said.get("interval", 5))),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise NotUnderstood(f"{at.issuer} began a sign-in, but did not say how it goes on: {error!r}") from error

    async def finish(self, at: Endpoints, client_id: str, started: Started, audience: str | None) -> Tokens:
        """Ask once whether the person has signed in (RFC 8628, 3.4). Raises as `start`, also while it is pending."""
        form = {"grant_type": DEVICE_GRANT, "device_code": started.device_code, "client_id": client_id}
        return _tokens(at.issuer, await self._asked(at.issuer, at.token, form | for_audience(audience)))

    async def refresh(self, at: Endpoints, client_id: str, token: str, audience: str | None) -> Tokens:
        """New tokens for a refresh token (RFC 6749, 6). Raises as `start`."""
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": client_id}
        return _tokens(at.issuer, await self._asked(at.issuer, at.token, form | for_audience(audience)))

    async def revoke(self, issuer: str, address: str, client_id: str, token: str) -> None:
        """End a refresh token and what hangs on it (RFC 7009). Raises as `start`."""
        form = {"token": token, "token_type_hint": "refresh_token", "client_id": client_id}
        answer = await self._send(issuer, "POST", address, form)
        if not answer.is_success:
            raise _refusal(issuer, answer)

    async def _asked(self, issuer: str, address: str, form: Mapping[str, str]) -> Json:
        answer = await self._send(issuer, "POST", address, form)
        said = _object(answer)
        if not answer.is_success:
            raise _refusal(issuer, answer)
        if said is None:
            raise NotUnderstood(f"{address} answered, but not as an issuer does")
        return said

    async def _send(
        self, issuer: str, method: str, address: str, form: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        try:
            return await self._http.request(method, address, data=form)
        except httpx2.TransportError as error:
            raise unreachable(issuer, error).then("is the network up? the issuer may also be away") from error


def for_audience(audience: str | None) -> dict[str, str]:
    """Ask for tokens for one audience: `audience` is what INDIGO IAM and WLCG issuers read, `resource` RFC 8707's."""
    if audience is None:
        return {}
    return {"audience": audience} | ({"resource": audience} if urlsplit(audience).scheme else {})


def _refusal(issuer: str, answer: httpx2.Response) -> IssuerRefused | Unreachable:
    said = _object(answer) or {}
    code = said.get("error")
    if isinstance(code, str) and answer.status_code not in _TEMPORARY:
        return IssuerRefused(issuer, _plain(code), _plain(said.get("error_description") or ""))
    if answer.status_code in _TEMPORARY:
        away = Unreachable(issuer, f"HTTP {answer.status_code}")
        return away.then("the issuer is busy or away for a while; try again later")
    return IssuerRefused(issuer, "invalid_response", f"HTTP {answer.status_code} without an OAuth error")


def _tokens(issuer: str, said: Json) -> Tokens:
    access, kind = said.get("access_token"), str(said.get("token_type", "")).lower()
    if not isinstance(access, str) or not access or kind != "bearer":
        raise NotUnderstood(f"{issuer} answered a token request without a bearer token")
    refresh, life = said.get("refresh_token"), said.get("expires_in")
    try:
        return Tokens(access, refresh if isinstance(refresh, str) else None, None if life is None else float(life))
    except (TypeError, ValueError) as error:
        raise NotUnderstood(f"{issuer} says that its token expires in {_plain(life)} seconds") from error


def _object(answer: httpx2.Response) -> Json | None:
    try:
        said = answer.json()
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _address(document: Json, name: str, issuer: str) -> str | None:
    address = document.get(name)
    if address is None:
        return None
    if not isinstance(address, str) or not is_private(address):
        raise NotUnderstood(f"the `{name}` of {issuer} is not an https address; nothing is sent there")
    return address


def _missing(issuer: str, name: str) -> Any:
    raise NotUnderstood(f"{issuer} offers no `{name}`, so nobody can sign in there from a command line")


def _link(address: Any, issuer: str) -> str:
    """An address that a person is sent to: nothing but a plain web address (no `file:`, no terminal tricks)."""
    if not isinstance(address, str) or not is_private(address) or not address.isprintable() or " " in address:
        raise NotUnderstood(f"the sign-in page that {issuer} names is not an https address")
    return address


def _plain(text: Any) -> str:
    """Foreign text for a terminal: printable, and not without end."""
    return "".join(char for char in str(text) if char.isprintable())[:300]
