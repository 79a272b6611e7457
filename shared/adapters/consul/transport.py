"""The HTTP under py-consul's calls: deadlines, trust, size and errors. py-consul keeps paths, parameters and parsing.

Takes the place of py-consul 1.8.0's own asyncio client, which gives a blocking query of 5 minutes a deadline of 5
minutes, trusts the system's authorities beside the one it is told, cannot verify a server by another name than the
address, follows redirects with the token, and reads any amount (docs/decisions names each).
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx2
from consul.base import Response

from shared.adapters.consul.answers import AWAY, SILENT, error_of
from shared.adapters.consul.settings import ConsulSettings
from shared.errors import Misconfigured, Unavailable

Params = Sequence[tuple[str, Any]] | None
Callback = Callable[[Any], Any]

_JITTER: Final = 1 / 16
"""Consul adds up to this part of `wait` to a blocking query."""


class Transport:
    """What py-consul calls `HTTPClient`: one agent. No call is ever made twice here."""

    def __init__(self, settings: ConsulSettings, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._client = httpx2.AsyncClient(
            verify=_context(settings),
            trust_env=False,
            follow_redirects=False,
            transport=transport,
            timeout=httpx2.Timeout(None, connect=settings.connect_timeout_s),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
        )
        """One connection for each query that waits: as many as there are services to follow."""

    async def get(
        self, callback: Callback, path: str, params: Params = None, headers: dict[str, str] | None = None, **_: Any
    ) -> Any:
        return await self._call("GET", callback, path, params, headers, b"")

    async def put(
        self, callback: Callback, path: str, params: Params = None, data: str | bytes = "",
        headers: dict[str, str] | None = None, **_: Any,
    ) -> Any:  # fmt: skip
        return await self._call(
            "PUT", callback, path, params, headers, data.encode() if isinstance(data, str) else data
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def _call(
        self, method: str, callback: Callback, path: str, params: Params, headers: dict[str, str] | None, data: bytes
    ) -> Any:
        where = f"{method} {self._settings.address}{path}"
        deadline = self._deadline(params)
        try:
            async with asyncio.timeout(deadline):
                status, answered, body = await self._read(method, path, params, headers, data)
        except TimeoutError as late:
            raise Unavailable(f"{where}: no answer within {deadline:g} s", code=SILENT) from late
        except (httpx2.HTTPError, OSError) as lost:
            raise self._lost(where, lost) from lost
        text = body.decode(errors="replace")
        if status >= 400 and status != 404:
            raise error_of(status, text, where)
        return callback(Response(status, answered, text))

    async def _read(
        self, method: str, path: str, params: Params, headers: dict[str, str] | None, data: bytes
    ) -> tuple[int, httpx2.Headers, bytes]:
        name = self._settings.tls_server_name
        url = self._settings.address + quote(path) + (f"?{urlencode(params)}" if params else "")
        extensions = {"sni_hostname": name} if name else {}
        body = bytearray()
        async with self._client.stream(method, url, headers=headers, content=data, extensions=extensions) as response:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > self._settings.answer_limit_bytes:
                    raise Unavailable(
                        f"{method} {self._settings.address}{path}: the answer has more than "
                        f"{self._settings.answer_limit_bytes} bytes (setting `answer_limit_bytes`)",
                        code="consul_unclear",
                    )  # fmt: skip
            return response.status_code, response.headers, bytes(body)

    def _deadline(self, params: Params) -> float:
        asked = dict(params or ())
        waits = float(str(asked.get("wait", "0s")).removesuffix("s")) if "index" in asked else 0.0
        return waits * (1 + _JITTER) + self._settings.call_timeout_s

    def _lost(self, where: str, lost: Exception) -> Unavailable | Misconfigured:
        cause: BaseException | None = lost
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Misconfigured(
                    f"{where}: its certificate cannot be verified: {cause.verify_message} (mend `ca_file` or "
                    "`tls_server_name`)", code="consul_tls",
                )  # fmt: skip
            cause = cause.__cause__ or cause.__context__
        return Unavailable(f"{where}: {type(lost).__name__} {lost}".strip(), code=AWAY)


def _context(settings: ConsulSettings) -> ssl.SSLContext:
    """Verification is never off; with `ca_file`, nobody else is trusted."""
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
        if settings.client_certificate_file:
            key = str(settings.client_key_file) if settings.client_key_file else None
            context.load_cert_chain(str(settings.client_certificate_file), key)
    except OSError as wrong:
        raise Misconfigured(
            f"Consul at {settings.address}: cannot use its TLS files: {wrong}", code="consul_tls"
        ) from wrong
    return context
