"""Tokens that are wrong, and agents that are away or misbehave: what is raised, and how soon."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from shared.adapters.nomad.local_trust import Authority, Pair
from shared.adapters.nomad.policies import Role
from shared.engine import Heartbeat, Line, Presence
from shared.errors import Misconfigured, OutcomeUnknown, Unavailable
from tests.ports.engine.site import an_order, of_address, trusting
from tests.real_nomad import RealNomad, real_nomad

STRANGER = "11111111-2222-4333-8444-555555555555"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.mark.parametrize("token", ["", STRANGER])
async def test_a_stream_without_a_good_token_is_refused_within_seconds(
    guarded: tuple[str, dict[str, Any]], token: str
) -> None:
    async with (
        of_address(guarded[0], **guarded[1] | {"token": token, "first_heartbeat_s": 0.5}) as site,
        asyncio.timeout(5),
    ):
        with pytest.raises(Misconfigured):
            await anext(site.watch.stream(0))


@pytest.mark.parametrize("token", ["", STRANGER])
async def test_nothing_is_done_or_proven_without_a_good_token(guarded: tuple[str, dict[str, Any]], token: str) -> None:
    async with of_address(guarded[0], **guarded[1] | {"token": token}) as site:
        for call in (site.engine.submit(an_order()), site.engine.ready(), site.watch.ready(), site.watch.listing()):
            with pytest.raises(Misconfigured):
                await call
        assert await site.watch.presence(an_order().attempt.nomad_id, "default") is Presence.UNPROVEN


async def test_a_good_token_opens_everything(guarded: tuple[str, dict[str, Any]]) -> None:
    async with of_address(guarded[0], **guarded[1]) as site:
        await site.engine.ready()
        assert await anext(site.watch.stream(0)) == Heartbeat()
        assert await site.watch.presence(an_order().attempt.nomad_id, "default") is Presence.ABSENT


async def test_an_agent_that_is_away_is_unavailable_and_nothing_has_happened() -> None:
    async with serving(_gone) as address:
        pass
    async with of_address(address) as site:
        with pytest.raises(Unavailable) as submit:
            await site.engine.submit(an_order())
        assert not isinstance(submit.value, OutcomeUnknown)
        with pytest.raises(Unavailable):
            await site.watch.listing()
        with pytest.raises(Unavailable):
            await anext(site.watch.stream(0))


async def test_a_connection_that_ends_without_an_answer_leaves_the_outcome_unknown() -> None:
    async with serving(_gone) as address, of_address(address) as site:
        with pytest.raises(OutcomeUnknown):
            await site.engine.submit(an_order())
        with pytest.raises(OutcomeUnknown):
            await site.engine.close(an_order().attempt, "default")
        with pytest.raises(Unavailable) as reading:
            await site.watch.listing()
        assert not isinstance(reading.value, OutcomeUnknown)


async def test_no_answer_in_time_leaves_the_outcome_unknown() -> None:
    async with serving(_silent) as address, of_address(address, call_timeout_s=0.2) as site:
        with pytest.raises(OutcomeUnknown):
            await site.engine.submit(an_order())
        with pytest.raises(Unavailable):
            await site.watch.ready()


async def test_too_many_connections_is_unavailable() -> None:
    answer = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow"
    async with serving(_saying(answer)) as address, of_address(address) as site:
        with pytest.raises(Unavailable):
            await site.engine.submit(an_order())
        with pytest.raises(Unavailable):
            await anext(site.watch.stream(0))
        with pytest.raises(Unavailable):
            await site.watch.listing()


async def test_trouble_at_the_site_is_not_a_missing_file() -> None:
    words = b"Failed to check if path escapes alloc directory: lstat /srv: permission denied"
    head = b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(words)
    async with serving(_saying(head + words)) as address, of_address(address) as site:
        with pytest.raises(Unavailable):
            await site.watch.file("00000000-0000-4000-8000-000000000000", "main/local/out", 10)


async def test_a_last_line_that_was_cut_off_is_dropped() -> None:
    lines = b'{}\n{"Index":7,"Events":[]}\n{"Index":8,"Eve'
    async with serving(_saying(OK + b"\r\n" + lines)) as address, of_address(address) as site:
        stream = site.watch.stream(7)
        assert [await anext(stream), await anext(stream)] == [Heartbeat(), Line(7, ())]
        with pytest.raises(Unavailable):
            await anext(stream)


async def test_a_stream_that_falls_silent_is_dead() -> None:
    beat = _saying(OK + b"\r\n{}\n", then=_silent)
    async with serving(beat) as address, of_address(address, silence_s=0.2) as site, asyncio.timeout(5):
        stream = site.watch.stream(0)
        assert await anext(stream) == Heartbeat()
        with pytest.raises(Unavailable):
            await anext(stream)


async def test_a_reader_that_is_too_slow_loses_the_stream_and_not_the_memory() -> None:
    flood = _saying(OK + b"\r\n{}\n" + b'{"Index":8,"Events":[]}\n' * 10_000, then=_silent)
    async with serving(flood) as address, of_address(address, stream_buffer_bytes=10_000) as site, asyncio.timeout(5):
        with pytest.raises(Unavailable, match="ahead of its reader"):
            async for _ in site.watch.stream(7):
                pass


async def test_an_answer_of_somebody_who_is_not_nomad_is_unavailable() -> None:
    answer = OK + b"Content-Length: 6\r\n\r\n<html>"
    async with serving(_saying(answer)) as address, of_address(address) as site:
        with pytest.raises(Unavailable):
            await site.watch.listing()
        with pytest.raises(OutcomeUnknown):
            await site.engine.submit(an_order())
        with pytest.raises(Unavailable):
            await anext(site.watch.stream(0))


async def test_only_the_named_authority_and_name_are_trusted(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    stranger.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("server.global.nomad").configure_cert(context)
    refusal = _saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\nConnection: close\r\n\r\nPermission denied")
    good = {"ca_file": tmp_path / "ca.pem", "tls_server_name": "server.global.nomad"}
    async with serving(refusal, context) as address:
        for wrong in (good | {"ca_file": tmp_path / "other.pem"}, good | {"tls_server_name": ""}, {}):
            assert await codes_at(address, wrong) == ["nomad_tls"] * 3
        assert await codes_at(address, good) == ["nomad_token"] * 3


async def test_a_certificate_that_cannot_be_trusted_is_said_with_what_to_mend(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    stranger.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    good = {"ca_file": tmp_path / "ca.pem"}
    async with serving(_silent, _of_server(authority)) as tls:
        assert "mend ca_file or tls_server_name" in await words_at(tls, ca_file=tmp_path / "other.pem")
        assert "mend ca_file or tls_server_name" in await words_at(tls, **good, tls_server_name="server.lyon.nomad")


@pytest.mark.nomad
async def test_tls_is_not_spoken_to_those_who_do_not_and_the_other_way_round(
    plain_nomad: RealNomad, guarded_nomad: RealNomad
) -> None:
    assert "begins with https://" in await words_of_reading(guarded_nomad.address.replace("https:", "http:"))
    assert "nobody speaks TLS there" in await words_at(plain_nomad.address.replace("http:", "https:"))


@pytest.mark.nomad
async def test_a_region_that_verifies_its_callers_takes_those_whom_its_authority_knows(tmp_path: Path) -> None:
    with real_nomad(name="strict", guarded=True, mutual=True, clients=()) as region:
        assert region.authority is not None
        known = region.authority.issue(tmp_path / "known", "scheduler.serai.example")
        unknown = Authority(tmp_path, datetime.now(UTC)).issue(tmp_path / "unknown", "scheduler.serai.example")
        good = trusting(region, Role.SCHEDULER)
        assert "wants to see a client certificate" in await words_of_reading(region.address, **good)
        assert "does not" in await words_of_reading(region.address, **good, **_shown(unknown))
        async with of_address(region.address, **good, **_shown(known)) as site:
            await site.engine.ready()
            await site.watch.ready()


def _shown(pair: Pair) -> dict[str, Any]:
    return {"client_certificate_file": pair.certificate, "client_key_file": pair.key}


def _of_server(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "server.global.nomad").configure_cert(context)
    return context


async def words_at(address: str, **settings: Any) -> str:
    """What is to be mended, as it is said when something is asked and when something is to be run: alike."""
    mend = await words_of_reading(address, **settings)
    async with of_address(address, **settings) as site:
        with pytest.raises(Misconfigured) as writing:
            await site.engine.submit(an_order())
    assert writing.value.code == "nomad_tls"
    assert writing.value.what.endswith(mend), writing.value.what
    return mend


async def words_of_reading(address: str, **settings: Any) -> str:
    """As it is said when something is asked. (Who writes may be cut off before the other side's reason comes.)"""
    async with of_address(address, **settings) as site:
        with pytest.raises(Misconfigured) as reading:
            await site.watch.ready()
    assert reading.value.code == "nomad_tls"
    return reading.value.what.rpartition("(")[2]


async def codes_at(address: str, settings: dict[str, Any]) -> list[str]:
    """How a write, a read and a stream are refused."""
    found = []
    async with of_address(address, **settings) as site:
        for call in (site.engine.submit(an_order()), site.watch.ready(), anext(site.watch.stream(0))):
            with pytest.raises(Misconfigured) as refused:
                await call
            found.append(refused.value.code)
    return found


@asynccontextmanager
async def serving(script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that reads a request's head and then does as the script says."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{'https' if context else 'http'}://{host}:{port}"


async def _gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close without a word, as Nomad does beyond its limit of connections."""


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


def _saying(answer: bytes, then: Script = _gone) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        await then(reader, writer)

    return script
