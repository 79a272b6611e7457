"""A refresh token is used once, however many ask at the same time: in one process, in several, and over Ctrl-C."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from serai.signin.logins import Login, Logins
from serai.signin.oauth import OAuth
from serai.signin.renewing import KeptLogin
from serai.wire import present_time
from services.auth import dev_issuer
from services.auth.dev_issuer import DevIssuerSettings
from services.embedded.folder import next_free_port
from shared.runtime.serving import HttpServer
from tests.builders import TestClock
from tests.unit.client.builders import Time, a_pace
from tests.unit.client.issuing import GATEWAY, ISSUER, AnyToken, Network, an_issuer

PROCESSES = 6
PROGRAM = """
import asyncio, sys
from pathlib import Path
from serai.signin.logins import Logins
from serai.signin.renewing import KeptLogin
from serai.wire import Pace
print(asyncio.run(KeptLogin(Logins(Path(sys.argv[1]), keyring=False), sys.argv[2], Pace()).token()))
"""


async def signed_in(folder: Path, issuer: str, transport: httpx2.AsyncBaseTransport | None = None) -> Logins:
    """A kept sign-in of alice whose access token has expired."""
    async with httpx2.AsyncClient(transport=transport, base_url=issuer) as http:
        said = (await http.post("/demo/token", data={"user": "alice", "scope": "offline_access"})).json()
    async with OAuth(transport) as oauth:
        at = await oauth.discover(issuer)
    logins = Logins(folder, keyring=False)
    login = Login(
        "expired", "Alice", present_time() - timedelta(days=3650), said["refresh_token"], issuer, "serai-cli", None,
        at.token, at.revocation,
    )  # fmt: skip
    logins.keep(GATEWAY, login)
    return logins


@pytest.mark.fast
async def test_many_requests_of_one_process_renew_once(tmp_path: Path) -> None:
    time = Time()
    network = Network({8080: AnyToken().app, 8081: an_issuer(tmp_path, time)})
    kept = KeptLogin(await signed_in(tmp_path, ISSUER, network), GATEWAY, a_pace(time), network)
    tokens = await asyncio.gather(*(kept.token() for _ in range(50)))
    assert len(set(tokens)) == 1 and network.grants() == ["refresh_token"]


@asynccontextmanager
async def serving(folder: Path, before: "Held | None" = None) -> AsyncIterator[str]:
    """The development issuer on a socket; `before` stands before it."""
    port = next_free_port(17_800)
    url = f"http://127.0.0.1:{port}"
    settings = DevIssuerSettings(url=url, key_file=folder / "dev.json")
    app = dev_issuer.assemble(settings, clock=TestClock()).app
    if before is not None:
        before.app, app = app, before
    server = HttpServer(app, "127.0.0.1", port)
    await server.start()
    yield url
    await server.stop()


async def test_many_processes_renew_once(tmp_path: Path) -> None:
    """A second use of the refresh token would end the sign-in for all of them."""
    async with serving(tmp_path) as url:
        logins = await signed_in(tmp_path / "config", url)
        words = (sys.executable, "-c", PROGRAM, str(logins.path.parent), GATEWAY)
        started = [
            await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE) for _ in range(PROCESSES)
        ]
        async with asyncio.timeout(60):
            told = {(await each.communicate())[0].decode().strip() for each in started}
        assert len(told) == 1 and "expired" not in told and "" not in told
        login = logins.of(GATEWAY)
        assert login is not None and {login.token} == told
        async with OAuth() as oauth:
            assert (await oauth.refresh(await oauth.discover(url), "serai-cli", login.refresh_token or "", None)).access


async def test_a_process_that_is_killed_while_the_issuer_rotates_costs_a_sign_in_said_in_words_and_nothing_else(
    tmp_path: Path,
) -> None:
    """The rotated token was on its way and is lost with the process: no client can prevent that. The lock is free
    again, the file is whole, and the next one says what to do.
    """
    held = Held()
    async with serving(tmp_path, held) as url:
        logins = await signed_in(tmp_path / "config", url)
        left_behind = logins.path.parent / ".tokens-left"
        left_behind.write_text("by one that was killed while it wrote")
        words = (sys.executable, "-c", PROGRAM, str(logins.path.parent), GATEWAY)
        killed = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(60):
            await held.rotated.wait()
            killed.kill()
            assert (await killed.communicate())[0] == b""
            held.go_on.set()
            pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
            after = await asyncio.create_subprocess_exec(*words, **pipes)  # type: ignore[arg-type]
            out, said = await after.communicate()
        assert (after.returncode, out) == (1, b"")
        assert b"has ended" in said and b"Traceback" in said
        login = logins.of(GATEWAY)
        assert login is not None and login.refresh_token is None, "the void one is not tried again"
        assert not left_behind.exists()


class Held:
    """Stands before the issuer and holds its answer to a refresh back, once it is made."""

    def __init__(self) -> None:
        self.app: Any = None
        self.rotated, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def answered(message: Any) -> None:
            if self.asked_to_refresh:
                self.rotated.set()
                await self.go_on.wait()
            await send(message)

        async def asked() -> Any:
            message = await receive()
            self.asked_to_refresh = b"grant_type=refresh_token" in message.get("body", b"")
            return message

        self.asked_to_refresh = False
        await self.app(scope, asked, answered)


@pytest.mark.fast
async def test_an_interruption_does_not_lose_what_the_issuer_has_given(tmp_path: Path) -> None:
    """Ctrl-C comes while the issuer has rotated and the answer is on its way."""
    time = Time()
    network = Slow({8080: AnyToken().app, 8081: an_issuer(tmp_path, time)})
    logins = await signed_in(tmp_path, ISSUER, network)
    before = logins.of(GATEWAY)
    asking = asyncio.create_task(KeptLogin(logins, GATEWAY, a_pace(time), network).token())
    await network.rotated.wait()
    asking.cancel()
    asyncio.get_running_loop().call_soon(network.go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await asking
    after = logins.of(GATEWAY)
    assert before is not None and after is not None and after.refresh_token != before.refresh_token


class Slow(Network):
    """Holds the answer to a refresh back."""

    def __init__(self, apps: dict[int, object]) -> None:
        super().__init__(apps)
        self.rotated, self.go_on = asyncio.Event(), asyncio.Event()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await super().handle_async_request(request)
        if "refresh_token" in self.grants():
            self.rotated.set()
            await self.go_on.wait()
        return answer
