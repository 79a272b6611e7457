"""Which access token goes out: given beats kept beats found, and what was only found does not go in the clear."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from serai import settings
from serai.connecting import bearer_of
from serai.errors import BadSettings, ClientError, NoWayIn
from serai.signin.logins import Login, Logins
from serai.wire import Bearer
from tests.unit.client.builders import Time, a_pace
from tests.unit.client.issuing import GATEWAY, ISSUER, AnyToken, Network

pytestmark = pytest.mark.fast

Answers = Mapping[str, Mapping[str, Any] | bytes]


def bearer(folder: Path, url: str = GATEWAY, **environment: str) -> tuple[Bearer | None, str]:
    """What a command would send, and where it says that it comes from."""
    here = {"SERAI_CONFIG_DIR": str(folder), "SERAI_KEYRING": "off", "TMPDIR": str(folder), **environment}
    chosen = settings.read(here, url=url)
    return bearer_of(chosen, here, a_pace(Time()), Network({8080: AnyToken().app}))


async def token(folder: Path, url: str = GATEWAY, **environment: str) -> str | None:
    found, _ = bearer(folder, url, **environment)
    return await found.token() if found is not None else None


async def test_the_order(tmp_path: Path) -> None:
    """Each is taken away in turn, and the next one counts."""
    uid = os.getuid()
    (tmp_path / "file").write_text("from-file\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"bt_u{uid}").write_text(" from-run ")
    (tmp_path / f"bt_u{uid}").write_text("from-tmp")
    Logins(tmp_path, keyring=False).keep(GATEWAY, Login("kept"))
    here = {
        "SERAI_TOKEN": "given", "BEARER_TOKEN": "bearer", "BEARER_TOKEN_FILE": str(tmp_path / "file"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }  # fmt: skip
    assert await token(tmp_path, **here) == "given"
    del here["SERAI_TOKEN"]
    assert await token(tmp_path, **here) == "bearer"
    del here["BEARER_TOKEN"]
    assert await token(tmp_path, **here) == "from-file"
    del here["BEARER_TOKEN_FILE"]
    assert await token(tmp_path, **here) == "kept"
    Logins(tmp_path, keyring=False).forget(GATEWAY)
    assert await token(tmp_path, **here) == "from-run"
    del here["XDG_RUNTIME_DIR"]
    assert await token(tmp_path, **here) == "from-tmp"
    (tmp_path / f"bt_u{uid}").unlink()
    assert await token(tmp_path, **here) is None


async def test_a_token_file_is_read_for_every_request(tmp_path: Path) -> None:
    """Somebody else renews it while a long command runs."""
    file = tmp_path / "file"
    file.write_text("first")
    found, source = bearer(tmp_path, BEARER_TOKEN_FILE=str(file))
    assert found is not None and source == "BEARER_TOKEN_FILE"
    assert await found.token() == "first"
    file.write_text("second")
    assert await found.token() == "second"
    file.unlink()
    with pytest.raises(BadSettings, match=r"BEARER_TOKEN_FILE: .* cannot be read"):
        await found.token()


@pytest.mark.parametrize("text", ["two words", "line\nline", "\x1b[31m", "žeton", " "])
async def test_what_is_no_token_is_not_sent(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadSettings, match="SERAI_TOKEN holds no token"):
        await token(tmp_path, SERAI_TOKEN=text)


@pytest.mark.parametrize("url", ["http://gateway.example.org", "http://127.0.0.1.example.org"])
async def test_a_token_that_was_only_found_does_not_go_in_the_clear(tmp_path: Path, url: str) -> None:
    (tmp_path / f"bt_u{os.getuid()}").write_text("x")
    for here in ({"BEARER_TOKEN": "x"}, {"BEARER_TOKEN_FILE": "/x"}, {}):
        with pytest.raises(BadSettings, match="others on the way could read it"):
            await token(tmp_path, url, **here)
    (tmp_path / f"bt_u{os.getuid()}").unlink()
    with pytest.raises(BadSettings, match="others on the way could read it"):
        await token(tmp_path, url, OIDC_SOCK="/x")
    assert await token(tmp_path, url, SERAI_TOKEN="meant") == "meant"


# -- oidc-agent ---------------------------------------------------------------------------------------------------


@dataclass
class Agent:
    """An oidc-agent on a socket of its own: what it answers by account or issuer."""

    socket: str
    answers: Answers
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = json.loads(await reader.read(4096))
        self.asked.append(question)
        unknown = {"status": "failure", "error": "No account configured with that short name"}
        answer = self.answers.get(question.get("account") or question.get("issuer"), unknown)
        writer.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def agent(folder: Path, answers: Answers) -> AsyncIterator[Agent]:
    found = Agent(str(folder / "agent.sock"), answers)
    async with await asyncio.start_unix_server(found.serve, found.socket):
        yield found


def success(text: str) -> dict[str, Any]:
    return {"status": "success", "access_token": text, "issuer": ISSUER, "expires_at": 1_800_000_000}


async def test_an_agent_is_asked_for_the_issuers_that_the_platform_names(tmp_path: Path) -> None:
    async with agent(tmp_path, {ISSUER: success("agents")}) as running:
        assert await token(tmp_path, OIDC_SOCK=running.socket) == "agents"
    assert running.asked == [
        {"request": "access_token", "min_valid_period": 60, "application_hint": "serai", "issuer": ISSUER}
    ]


async def test_an_agent_is_asked_for_the_account_that_is_named(tmp_path: Path) -> None:
    async with agent(tmp_path, {"egi": success("agents")}) as running:
        assert await token(tmp_path, OIDC_SOCK=running.socket, SERAI_OIDC_ACCOUNT="egi") == "agents"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": "failure", "error": "Account not loaded"}, "Account not loaded"),
        ({"status": "success"}, "no token in its answer"),
        (b"", "its answer was not understood"),
        (b"[]", "its answer was not understood"),
        (b"not json", "its answer was not understood"),
        ({"status": "failure", "error": "\x1b[2Jgone"}, "for egi: \\[2Jgone"),
    ],
)
async def test_an_agent_without_a_token_is_told_in_its_own_words(tmp_path: Path, answer: Any, words: str) -> None:
    async with agent(tmp_path, {"egi": answer}) as running:
        with pytest.raises(NoWayIn, match=words) as caught:
            await token(tmp_path, OIDC_SOCK=running.socket, SERAI_OIDC_ACCOUNT="egi")
    assert "oidc-add" in str(caught.value.next)


async def test_an_agent_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="oidc-agent does not answer"):
        await token(tmp_path, OIDC_SOCK=str(tmp_path / "none.sock"), SERAI_OIDC_ACCOUNT="egi")
