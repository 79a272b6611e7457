"""The session that python-nomad is given: its calls straight on urllib3, without the layers of `requests`.

python-nomad takes any session with `get`, `post`, `put` and `delete`. Those of `requests` cost about 1 ms of CPU a
call (more than Nomad's answer); this one a third of it. Its pool is safe to share among threads. urllib3's exceptions
pass through python-nomad untouched, so that what was never sent can be told from what was. Used by `control.py` alone.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson
import urllib3

from shared.adapters.nomad.settings import ClusterSettings
from shared.adapters.nomad.trust import context_of
from shared.adapters.token_file import Token

_JSON = {"Content-Type": "application/json"}


class Answer:
    """As much of a `requests` response as python-nomad and we look at."""

    __slots__ = ("body", "status_code")

    def __init__(self, status_code: int, body: bytes) -> None:
        self.status_code = status_code
        self.body = body

    @property
    def ok(self) -> bool:
        return self.status_code < 300

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body's value. Raises ValueError."""
        return orjson.loads(self.body)


class LeanSession:
    """One pool of connections to one cluster. Trust, deadlines and the address are the pool's: arguments about them
    that python-nomad passes with each call are not looked at, so they cannot loosen anything.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        self._timeout = urllib3.Timeout(connect=settings.connect_timeout_s, read=settings.call_timeout_s)
        self._pool = _pool(settings)
        self._token = Token(settings.token.get_secret_value(), settings.token_file)

    def get(self, *, url: str, params: Mapping[str, Any] | None, headers: Mapping[str, str] | None, **_: Any) -> Answer:
        return self._ask("GET", url, params, headers)

    def delete(
        self, *, url: str, params: Mapping[str, Any] | None, headers: Mapping[str, str] | None, **_: Any
    ) -> Answer:
        return self._ask("DELETE", url, params, headers)

    def post(
        self, *, url: str, params: Mapping[str, Any] | None, headers: Mapping[str, str] | None, json: Any, **_: Any
    ) -> Answer:
        return self._ask("POST", url, params, {**(headers or {}), **_JSON}, orjson.dumps(json))

    def put(
        self, *, url: str, params: Mapping[str, Any] | None, headers: Mapping[str, str] | None, json: Any, **_: Any
    ) -> Answer:
        return self._ask("PUT", url, params, {**(headers or {}), **_JSON}, orjson.dumps(json))

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _ask(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        body: bytes | None = None,
    ) -> Answer:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        path = urlsplit(url).path + (f"?{urlencode(given)}" if given else "")
        headers = {**(headers or {}), **self._token.headers("X-Nomad-Token")}
        found = self._pool.urlopen(
            method, path, body=body, headers=headers, timeout=self._timeout, retries=False, redirect=False
        )
        return Answer(found.status, found.data)


def _pool(settings: ClusterSettings) -> urllib3.HTTPConnectionPool:
    address = urlsplit(settings.address)
    host = address.hostname or ""
    size: dict[str, Any] = {"maxsize": settings.calls_at_a_time, "block": True}
    if address.scheme == "http":
        return urllib3.HTTPConnectionPool(host, address.port or 80, **size)
    name = settings.tls_server_name or None
    return urllib3.HTTPSConnectionPool(
        host, address.port or 443, ssl_context=context_of(settings), server_hostname=name, **size
    )
