"""Talking to one trusted issuer: bounded answers, no redirects, and addresses that only settings and the issuer's own
discovery document give. Used for its keys (`keys.py`) and its word on memberships (`claims_source.py`).
"""

import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2 as httpx

from services.auth.bad_token import BadToken
from services.auth.issuers import Issuer
from shared.errors import Unavailable
from shared.runtime import jws

MOST_BYTES: Final = 262_144
_CONNECT_S: Final = 2.0
_DEPTH: Final = 8
_DISCOVERY: Final = "/.well-known/openid-configuration"
_REFUSALS: Final = frozenset({400, 401, 403})


class IssuerHttp:
    """The client of one issuer. Nothing that a token says becomes an address."""

    def __init__(self, issuer: Issuer, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._issuer = issuer
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=issuer.ca_file) if issuer.ca_file else True
        self._client = httpx.AsyncClient(
            transport=transport, verify=verify, timeout=httpx.Timeout(_CONNECT_S, connect=_CONNECT_S),
            follow_redirects=False, trust_env=False, limits=httpx.Limits(max_connections=32),
        )  # fmt: skip
        self._document: dict[str, Any] | None = None

    async def close(self) -> None:
        await self._client.aclose()

    async def endpoint(self, configured: str | None, name: str) -> str:
        """An address: as configured, else as the discovery document read last says. Raises Unavailable."""
        if configured is not None:
            return configured
        if self._document is None:
            await self.discover()
        return self._at_home(name)

    async def discover(self) -> dict[str, Any]:
        """The discovery document, read anew (OpenID Connect Discovery 1.0, section 4.3). Raises Unavailable."""
        document = await self.get(self._issuer.issuer.rstrip("/") + _DISCOVERY)
        if document.get("issuer") != self._issuer.issuer:
            named = str(document.get("issuer"))[:200]
            raise Unavailable(
                f"the discovery document at {self._issuer.issuer} names another issuer, {named!r}: write it exactly so "
                "if that is the one you mean"
            )
        self._document = document
        return document

    def _at_home(self, name: str) -> str:
        """An endpoint of the discovery document, which must be on the issuer's own host."""
        address, home = (self._document or {}).get(name), self._issuer.issuer
        if not isinstance(address, str) or urlsplit(address)[:2] != urlsplit(home)[:2]:
            setting = name.replace("_endpoint", "_uri")
            raise Unavailable(f"{home} keeps its `{name}` elsewhere: set `{setting}` if that is right")
        return address

    async def get(self, address: str) -> dict[str, Any]:
        """The JSON object at an address. Raises Unavailable for anything else."""
        return await self._object("GET", address, {})

    async def get_as(self, address: str, token: str) -> dict[str, Any]:
        """The same, asked with a user's token. Raises BadToken when the issuer refuses that token."""
        return await self._object("GET", address, {"Authorization": f"Bearer {token}"}, refusable=True)

    async def post_form(self, address: str, form: Mapping[str, str], client: tuple[str, str]) -> dict[str, Any]:
        """The answer to a form that our own client posts. Raises Unavailable."""
        return await self._object("POST", address, {}, data=dict(form), auth=httpx.BasicAuth(*client))

    async def _object(
        self, method: str, address: str, headers: dict[str, str], *, refusable: bool = False, **more: Any
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", **headers}
        request = self._client.build_request(method, address, headers=headers, data=more.get("data"))
        try:
            response = await self._client.send(request, stream=True, auth=more.get("auth"))
            try:
                if refusable and response.status_code in _REFUSALS:
                    raise BadToken(f"its issuer refuses it at its userinfo endpoint ({response.status_code})")
                if response.status_code != 200:
                    raise Unavailable(f"{address} answered {response.status_code}")
                return jws.strict_json(await _limited(response, address), _DEPTH, "the document")
            finally:
                await response.aclose()
        except (httpx.HTTPError, jws.Malformed, ssl.SSLError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise Unavailable(
                    f"{address} has a TLS certificate that is not trusted here: set `ca_file` to the CA that it is of"
                ) from error
            raise Unavailable(f"{address} does not answer as it should: {error!r}") from error


async def _limited(response: httpx.Response, address: str) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Unavailable(f"{address} answered more than {MOST_BYTES} bytes")
    return body
