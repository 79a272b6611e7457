"""RabbitMQ's management API (plugin `rabbitmq_management`), as far as outside readers need it: users and queues.

Read from one URL: `http://user:password@host:15672` or `https://user:password@host:15671?cafile=/path/ca.pem`. The
user must be an `administrator` of that broker, because only those may make users.
"""

import ssl
from typing import Any, Final
from urllib.parse import quote

import httpx2 as httpx
from yarl import URL

from shared.errors import Misconfigured, Unavailable

CALL_S: Final = 5.0
_FORM: Final = "http://user:password@host:15672, or https://...:15671?cafile=/path/ca.pem"


class Management:
    """One client of one broker."""

    def __init__(self, url: str) -> None:
        """Raises Misconfigured for an address that cannot work."""
        try:
            read = URL(url)
            port = read.port
        except ValueError:
            raise Misconfigured(f"the address of RabbitMQ's management cannot be read; it is written {_FORM}") from None
        if read.scheme not in ("http", "https") or not read.host or not read.user:
            raise Misconfigured(f"the address of RabbitMQ's management is written {_FORM}")
        self.where = f"RabbitMQ's management at {read.host}:{port}"
        self._client = httpx.AsyncClient(
            base_url=str(read.with_user(None).with_query(None).with_path("/api/")),
            auth=(read.user, read.password or ""), timeout=CALL_S, verify=self._trust(read), trust_env=False,
        )  # fmt: skip

    async def get(self, *path: str, **query: str) -> Any:
        """What is at a path; None when there is nothing."""
        answer = await self._send("GET", path, None, query)
        return None if answer.status_code == 404 else answer.json()

    async def put(self, *path: str, body: Any) -> None:
        """Make it, or make it so. Raises Misconfigured when it is there and cannot be made so."""
        await self._send("PUT", path, body, {})

    async def post(self, *path: str, body: Any) -> None:
        await self._send("POST", path, body, {})

    async def delete(self, *path: str) -> None:
        """Take it away; harmless when it is not there."""
        await self._send("DELETE", path, None, {})

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, method: str, path: tuple[str, ...], body: Any, query: dict[str, str]) -> httpx.Response:
        """Raises Unavailable (away, overloaded, starting) or Misconfigured (login, rights, arguments)."""
        try:
            answer = await self._client.request(
                method, "/".join(quote(part, safe="") for part in path), json=body, params=query or None
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.where} does not answer: {error!r}", code="subscribers_away") from error
        if answer.status_code == 401:
            raise Misconfigured(f"{self.where} does not accept our user name or password ({method} {'/'.join(path)})")
        if answer.status_code == 404 and method != "PUT":
            return answer
        if 400 <= answer.status_code < 500:
            words = answer.text[:300]
            raise Misconfigured(f"{self.where} refuses {method} {'/'.join(path)}: {words}; see docs/rabbitmq.md")
        if answer.status_code >= 500:
            raise Unavailable(f"{self.where} answered {answer.status_code}: {answer.text[:300]}")
        return answer

    def _trust(self, url: URL) -> ssl.SSLContext | bool:
        if url.scheme == "http":
            return True
        try:
            return ssl.create_default_context(cafile=url.query.get("cafile"))
        except OSError as error:
            raise Misconfigured(f"{self.where}: cannot use {url.query.get('cafile')}: {error}") from error
