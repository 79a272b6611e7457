"""`GET /v1/event/stream`: one reader's connection.

The head goes out first; then a `{}` at once proves the subscription, lines follow, `{}` every heartbeat. A refused,
dropped or narrowed stream is not closed but silent, until a collector would have closed it (settings.stream_gc_s).
"""

import asyncio
import re
from typing import TYPE_CHECKING

from .broker import Subscription
from .web import HttpError, Request, Send

if TYPE_CHECKING:
    from .server import EmbeddedAgent

HEARTBEAT = b"{}\n"


class Stream:
    """An open stream; the agent may end or silence it."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.closed = False
        self.silent = False

    def close(self) -> None:
        """EOF now."""
        self.closed = True
        self.wake.set()

    def silence(self) -> None:
        """Nothing more is sent; the connection stays."""
        self.silent = True
        self.wake.set()


def parse_index(text: str) -> int:
    """Go's Atoi, with its complaint."""
    if text and not re.fullmatch(r"[+-]?\d+", text):
        raise HttpError(400, f'Unable to parse index: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text or 0)


def parse_topics(wanted: list[str]) -> dict[str, frozenset[str]]:
    """`Topic` or `Topic:key`, repeated; none means all."""
    topics: dict[str, set[str]] = {}
    for text in wanted:
        parts = text.split(":")
        if len(parts) > 2:
            raise HttpError(
                400, f"Invalid topic query: error parsing topics: Invalid key value pair for topic, topic: {text}"
            )
        keys = topics.setdefault(parts[0], set())
        keys.add(parts[1] if len(parts) == 2 and parts[1] else "*")
    return {topic: frozenset(keys) for topic, keys in topics.items()} or {"*": frozenset(("*",))}


async def serve(agent: "EmbeddedAgent", request: Request, send: Send, *, allowed: bool) -> None:
    """Serve one stream until its client or the agent ends it."""
    index = parse_index(request.get("index"))
    topics = parse_topics(request.all("topic"))
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    stream = Stream()
    agent.streams.add(stream)
    gone = asyncio.create_task(_watch_client(request, stream), name="stream-client")
    subscription = None
    try:
        if not allowed:
            stream.silence()
        else:
            names = (
                agent.region.namespaces if request.get("namespace") == "*" else {request.get("namespace") or "default"}
            )
            subscription = agent.broker.subscribe(topics, frozenset(names), index)
            subscription.wake = stream.wake.set
            await send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        await _pump(agent, stream, subscription, send)
    finally:
        agent.streams.discard(stream)
        if subscription is not None:
            agent.broker.unsubscribe(subscription)
        gone.cancel()
    await send({"type": "http.response.body", "body": b""})


async def _watch_client(request: Request, stream: Stream) -> None:
    await request.gone()
    stream.close()


async def _pump(agent: "EmbeddedAgent", stream: Stream, subscription: Subscription | None, send: Send) -> None:
    loop = asyncio.get_running_loop()
    beat = loop.time() + agent.settings.stream_heartbeat_s
    while not stream.closed:
        if stream.silent or subscription is None or subscription.dropped:
            await _stay_silent(agent, stream)
            return
        stream.wake.clear()
        data = agent.broker.next_bytes(subscription)
        if data:
            await send({"type": "http.response.body", "body": data, "more_body": True})
            continue
        try:
            async with asyncio.timeout_at(beat):
                await stream.wake.wait()
        except TimeoutError:
            await send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
            beat += agent.settings.stream_heartbeat_s


async def _stay_silent(agent: "EmbeddedAgent", stream: Stream) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + agent.settings.stream_gc_s
    while not stream.closed and loop.time() < until:
        stream.wake.clear()
        try:
            async with asyncio.timeout_at(until):
                await stream.wake.wait()
        except TimeoutError:
            return
