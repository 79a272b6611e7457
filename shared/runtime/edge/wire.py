"""The connection: how much and how slowly a client may send, and what is refused before it is a request.

uvicorn's protocol on httptools (llhttp, strict) reads; here its answers to faults become problem documents, and bounds
that it does not have are kept: size of the head, number of headers, time for head and body, time to take the answer.
"""

import asyncio
from typing import Any, Final

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from shared.runtime import logs, problems
from shared.runtime.edge import heads
from shared.runtime.edge.crowd import FULL, Crowd
from shared.runtime.edge.heads import Fault
from shared.runtime.edge.settings import EdgeSettings

LINGER_S: Final = 2.0
"""Seconds that we go on reading, and forgetting, after a refusal: closed at once, the client might never see it."""

log = logs.get("edge")


class _Stop(Exception):
    """Ends the parser from within; `_fault` says why."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Made by `protocol(...)`, which ties it to its bounds."""

    bounds: EdgeSettings
    crowd: Crowd

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._in_head = False
        self._in_body = False
        self._over = False
        self._received = 0
        self._taken = 0
        self._fault: Fault | None = None
        self._late: asyncio.TimerHandle | None = None
        self._late_for = ""
        self._unread: asyncio.TimerHandle | None = None
        self._counted = ""

    # -- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        counted = self.crowd.enter(self._peer())
        if counted is None:
            self._cut(FULL)
            return
        self._counted = counted
        self._expect("head")

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.leave(self._counted)
        self._expect("")
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._unset_keepalive_if_required()
        self._received += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end_after_answer()
        except httptools.HttpParserError:
            self._cut(self._fault or heads.MALFORMED)
            return
        if self._in_head:
            if self._received > self.bounds.head_bytes + self.bounds.request_line_bytes:
                self._cut(self._head_fault())
                return
            self._expect("head")
        elif self._in_body:
            if self._received > 2 * self.bounds.body_bytes:  # chunks of a byte each, extensions without end
                self._cut(heads.too_large(self.bounds))
                return
            self._expect("body")
        elif self._late is not None:
            self._expect("")

    def _expect(self, what: str) -> None:
        """Start the clock for the head or the body, unless it runs already; '' stops it."""
        if self._late_for == what:
            return
        if self._late is not None:
            self._late.cancel()
        self._late, self._late_for = None, what
        if what:
            after_s = self.bounds.head_s if what == "head" else self.bounds.body_s
            self._late = self.loop.call_later(after_s, self._too_late)

    def _too_late(self) -> None:
        self._late = None
        if self.transport.is_closing():
            return
        if self._in_head or self._in_body:
            self._cut(heads.BODY_LATE if self._in_body else heads.HEAD_LATE)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.bounds.unread_s, self._not_read)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _not_read(self) -> None:
        log.info("answer_not_read", peer=self._peer(), after_s=self.bounds.unread_s)
        self.transport.abort()

    # -- the parser's callbacks -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._in_body = True, False

    def on_headers_complete(self) -> None:
        self._fault = heads.of_wire(self.url, self.headers, self.parser.get_http_version(), self.bounds)
        if self._fault is None and not self.url.startswith((b"/", b"*")):
            self._fault = heads.MALFORMED  # absolute-form names a second host, authority-form asks for a tunnel
        if self._fault is not None:
            raise _Stop
        super().on_headers_complete()
        self.headers = []  # what comes as a trailer is no header
        self._in_head, self._in_body, self._received, self._taken = False, True, 0, 0

    def on_body(self, body: bytes) -> None:
        self._taken += len(body)
        if self._taken > self.bounds.body_bytes:
            self._fault = heads.too_large(self.bounds)
            raise _Stop
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._received = False, 0
        super().on_message_complete()

    # -- refusing -------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """uvicorn's own word for what it cannot read."""
        self._cut(heads.MALFORMED)

    def _head_fault(self) -> Fault:
        long = not self.headers and len(self.url) > self.bounds.request_line_bytes
        return heads.target_too_long(self.bounds) if long else heads.head_too_large(self.bounds)

    def _cut(self, fault: Fault) -> None:
        """Refuse what is being read and end the connection. An answer that is under way is not mixed up with it."""
        log.info("connection_refused", code=fault.code, peer=self._peer())
        cycle = self.cycle
        waiting = cycle is not None and not cycle.response_complete
        self._over = True
        self._expect("")
        if waiting and (self._in_head or self.pipeline):  # the fault is in a later request
            self.pipeline.clear()
            self._end_after_answer()
            return
        if not waiting or not cycle.response_started:
            self.transport.write(_answer(fault, self.server_state.default_headers))
        if waiting:
            cycle.disconnected = True
            cycle.message_event.set()
        self._linger()

    def _end_after_answer(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def _linger(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._late = self.loop.call_later(LINGER_S, self.transport.close)

    def _peer(self) -> str:
        return self.client[0] if self.client else ""


def protocol(bounds: EdgeSettings, crowd: Crowd) -> type[BoundedProtocol]:
    """The protocol with these bounds, for the `http` of a `uvicorn.Config`."""
    return type("BoundedProtocol", (BoundedProtocol,), {"bounds": bounds, "crowd": crowd})


def _answer(fault: Fault, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """A whole answer with the problem document; the connection ends with it."""
    status, document = problems.document(fault.code, fault.detail)
    body = orjson.dumps(document)
    headers = [
        *default_headers, (b"content-type", problems.CONTENT_TYPE.encode()), (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"), *([(b"retry-after", b"1")] if fault is FULL else []),
    ]  # fmt: skip
    return b"".join([STATUS_LINE[status], *(b"%s: %s\r\n" % header for header in headers), b"\r\n", body])
