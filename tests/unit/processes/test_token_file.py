"""A token in a file that is renewed while we run: taken up with the next call, and never lost on the way."""

from pathlib import Path

import pytest

from shared.adapters.token_file import Token
from tests.unit.consul_adapter.scripted import ScriptedConsul

pytestmark = pytest.mark.fast


def renewed(file: Path, content: bytes) -> None:
    """As careful programs do it: a whole new file in place of the old one."""
    fresh = file.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(file)


def test_the_token_is_what_stands_in_the_file_now(tmp_path: Path) -> None:
    file = tmp_path / "token"
    renewed(file, b"first\n")
    token = Token("", file)
    assert token.now() == "first"
    renewed(file, b"other\n")
    assert token.headers("X-Nomad-Token") == {"X-Nomad-Token": "other"}


@pytest.mark.parametrize("between", [None, b"", b" \n", b"\xff\xfe"])
def test_while_the_file_is_being_written_the_last_token_serves(tmp_path: Path, between: bytes | None) -> None:
    file = tmp_path / "token"
    renewed(file, b"first")
    token = Token("", file)
    assert token.now() == "first"
    if between is None:
        file.unlink()
    else:
        renewed(file, between)
    assert [token.now(), token.now()] == ["first", "first"]
    renewed(file, b"second")
    assert token.now() == "second"


def test_without_a_file_it_is_what_was_given_and_without_that_nothing_is_sent() -> None:
    assert Token("given").headers("X-Consul-Token") == {"X-Consul-Token": "given"}
    assert Token("").headers("X-Consul-Token") == {}


async def test_consul_is_asked_with_the_token_of_this_moment(tmp_path: Path) -> None:
    file, consul = tmp_path / "token", ScriptedConsul()
    renewed(file, b"first")
    agent = consul.agent(token_file=file)
    await agent.copies("serai-site", datacenter=None, index=0)
    renewed(file, b"other")
    await agent.copies("serai-site", datacenter=None, index=0)
    assert [request.headers["X-Consul-Token"] for request in consul.seen] == ["first", "other"]
