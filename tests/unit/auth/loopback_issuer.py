"""A small issuer on a real loopback socket, whose every answer and every misbehaviour a test decides."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.auth.demo_users import CLIMATE
from services.auth.issuers import Issuer, Speaker
from tests.free_ports import free_port
from tests.unit.auth.world import AUTHORITY, NAMESPACE, FakeIssuer, entitlement, signed

FIRST_PORT = 23_000
BASIC = "Basic c2VyYWk6aHVzaA=="
"""`serai` with the secret `hush`."""


@dataclass
class LoopbackIssuer(FakeIssuer):
    """An EGI-like issuer: tokens without memberships, `userinfo` and `introspection` say them.

    `trouble` by path: a status, or `hang`, `drip` (a byte now and then), `huge`, `html`, `redirect`, `hang_up`.
    """

    userinfo: dict[str, Any] = field(default_factory=dict)
    introspection: dict[str, Any] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    heads: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    gate: asyncio.Event | None = None

    def egi_claims(self, **changed: Any) -> dict[str, Any]:
        claims = self.claims(aud=None, client_id=None, entitlements=None, name=None)
        claims |= {"typ": "Bearer", "azp": "serai-cli"} | changed
        return {name: value for name, value in claims.items() if value is not None}

    def egi_token(self, **changed: Any) -> str:
        return signed(self.key, self.egi_claims(**changed), typ="JWT")

    def says(self) -> dict[str, Any]:
        told = {"sub": "alice", "name": "Alice", "eduperson_entitlement": [entitlement(CLIMATE)]} | self.userinfo
        return {name: value for name, value in told.items() if value is not None}

    def body_of(self, path: str) -> dict[str, Any]:
        if path.endswith("openid-configuration"):
            names = {"jwks_uri": "jwks", "userinfo_endpoint": "userinfo", "introspection_endpoint": "introspect"}
            said = {"issuer": self.url} | {name: f"{self.url}/{at}" for name, at in names.items()}
            return said | self.discovery
        if path == "/userinfo":
            return self.says()
        if path == "/introspect":
            told = {"active": True} | self.says() | self.introspection
            return {name: value for name, value in told.items() if value is not None}
        return dict(orjson.loads(self.document or self.jwks()))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, the connection closed."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            self.counts[path] += 1
            self.heads.append(head)
            if self.gate is not None and path in ("/userinfo", "/introspect"):
                await self.gate.wait()
            await self._answer(writer, path)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.at_once -= 1
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, path: str) -> None:
        trouble = self.trouble.get(path, "")
        body, status, more = orjson.dumps(self.body_of(path)), "200 OK", ""
        match trouble:
            case "hang_up":
                return
            case "hang":
                await asyncio.Event().wait()
            case "drip":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.02):
                            await asyncio.Event().wait()
            case "huge":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                for _ in range(1_000):
                    writer.write(b"x" * 65_536)
                    await writer.drain()
                return
            case "html":
                body = b"<html>maintenance</html>"
            case "redirect":
                status, more = "302 Found", "Location: http://169.254.169.254/latest\r\n"
            case _ if trouble:
                status = f"{trouble} Trouble"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        await writer.drain()


@contextlib.asynccontextmanager
async def loopback_issuer(**fields: Any) -> AsyncIterator[LoopbackIssuer]:
    """The issuer, listening."""
    port = free_port(FIRST_PORT)
    issuer = LoopbackIssuer(url=f"http://127.0.0.1:{port}", **fields)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(issuer.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield issuer
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def trusted_egi(url: str, **changed: Any) -> Issuer:
    """How auth trusts it."""
    fields: dict[str, Any] = {
        "issuer": url, "profile": "egi", "algorithms": ("ES256",), "development": True,
        "accept_shared_audience": True, "clients": ("serai-cli",), "subject_claim": "sub",
        "speakers": (Speaker(namespace=NAMESPACE, authority=AUTHORITY),), "vos": (CLIMATE,),
    }  # fmt: skip
    return Issuer(**(fields | changed))
