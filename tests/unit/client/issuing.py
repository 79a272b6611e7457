"""A platform and its issuer for tests of signing in: a scripted gateway and the real development issuer on one wire."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2

from services.auth import dev_issuer
from services.auth.dev_issuer import DevIssuerSettings
from tests.unit.client.builders import Time
from tests.unit.client.fake_gateway import FakeGateway

GATEWAY = "http://127.0.0.1:8080"
ISSUER = "http://127.0.0.1:8081"


class Network(httpx2.AsyncBaseTransport):
    """Carries each request to the app at its port. `away` ports refuse connections; `asked` remembers all."""

    def __init__(self, apps: dict[int, Any]) -> None:
        self._apps = {port: httpx2.ASGITransport(app) for port, app in apps.items()}
        self.away: set[int] = set()
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        form = dict(httpx2.QueryParams((await request.aread()).decode()))
        self.asked.append((request.method, str(request.url), form))
        if request.url.port in self.away:
            raise httpx2.ConnectError("connection refused", request=request)
        return await self._apps[request.url.port or 80].handle_async_request(request)

    def grants(self) -> list[str]:
        """The grant types that the token endpoint was asked for, in order."""
        return [form["grant_type"].rpartition(":")[2] for _, url, form in self.asked if url == f"{ISSUER}/token"]


class PersonsTime(Time):
    """A clock that only sleeping moves, and somebody who does something during the first sleep."""

    def __init__(self, does: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__()
        self._does = does

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if self._does is not None:
            does, self._does = self._does, None
            await does()


class AnyToken(FakeGateway):
    """Takes every token for alice's, but those that are `void`, and none when `closed`; says which came."""

    def __init__(self, issuer: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.issuers = [issuer or {
            "issuer": ISSUER, "name": "demo", "client_id": "serai-cli", "demo_token_endpoint": f"{ISSUER}/demo/token",
            "scopes": ["openid", "offline_access"],
        }]  # fmt: skip
        self.void: set[str] = set()
        self.vouches = ISSUER
        self.closed = False

    def accepts(self, authorization: str | None) -> bool:
        return not self.closed and bool(authorization) and str(authorization).removeprefix("Bearer ") not in self.void

    def tokens(self) -> list[str]:
        """The tokens that came with requests, in order."""
        return [asked.headers["authorization"].removeprefix("Bearer ") for asked in self.asked
                if "authorization" in asked.headers]  # fmt: skip


def an_issuer(folder: Path, time: Time, **settings: Any) -> Any:
    """The development issuer as an app."""
    chosen = DevIssuerSettings.model_validate({"url": ISSUER, "key_file": folder / "dev.json"} | settings)
    return dev_issuer.assemble(chosen, clock=time.day).app
