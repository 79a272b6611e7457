"""The little HTTP that the API needs over ASGI: requests, answers, errors. No routing, no Nomad."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from .jobspec import duration

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
MAX_WAIT_S = 300.0
MAX_BODY = 64 * 1024 * 1024


class HttpError(Exception):
    """An answer in plain text, as Nomad gives its errors."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(slots=True)
class Answer:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    async def send(self, send: Send) -> None:
        """Write it."""
        headers = [(b"content-length", str(len(self.body)).encode())]
        if self.content_type:
            headers.append((b"content-type", self.content_type.encode()))
        headers += [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_answer(value: Any, **headers: str) -> Answer:
    """A JSON answer; header names are given with `_` for `-`."""
    return Answer(200, orjson.dumps(value), headers={name.replace("_", "-"): text for name, text in headers.items()})


def text_answer(status: int, text: str) -> Answer:
    """A plain text answer."""
    return Answer(status, text.encode(), "text/plain; charset=utf-8")


class Request:
    """One request: method, decoded path, query and, when asked for, body."""

    __slots__ = ("_receive", "method", "path", "query", "scope")

    def __init__(self, scope: Message, receive: Receive) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        raw = scope.get("raw_path") or b""
        self.path = unquote(raw.decode("latin-1").partition("?")[0]) if raw else str(scope["path"])
        self.query: list[tuple[str, str]] = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        self._receive = receive

    def get(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), default)

    def all(self, name: str) -> list[str]:
        """All values of a query parameter."""
        return [value for key, value in self.query if key == name]

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean parameter in any of Go's spellings."""
        text = self.get(name)
        if not text:
            return default
        if text not in ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"):
            raise HttpError(
                400,
                f'Failed to parse value of "{name}" ({text}) as a bool: '
                f'strconv.ParseBool: parsing "{text}": invalid syntax',
            )
        return text in ("1", "t", "T", "true", "TRUE", "True")

    def header(self, name: bytes) -> str:
        """A request header, by its lower-case name."""
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == name), "")

    def index(self) -> int:
        """The index a blocking query waits beyond."""
        text = self.get("index")
        if text and not re.fullmatch(r"\d+", text):
            raise HttpError(400, "Invalid index")
        return int(text or 0)

    def wait_s(self) -> float:
        """How long a blocking query may wait."""
        try:
            wanted = duration(self.get("wait")) / 1e9
        except ValueError:
            raise HttpError(400, "Invalid wait time") from None
        return min(wanted or MAX_WAIT_S, MAX_WAIT_S)

    def only(self, *methods: str) -> None:
        """405 for any other method."""
        if self.method not in methods:
            raise HttpError(405, "Invalid method")

    async def body(self) -> bytes:
        """The whole body."""
        parts, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise HttpError(499, "client went away")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY:
                raise HttpError(413, "request body too large")
            if not message.get("more_body"):
                return b"".join(parts)

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        data = await self.body()
        if not data.strip():
            raise HttpError(400, "Request body is empty")
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise HttpError(400, go_json_error(data)) from None
        if not isinstance(value, dict):
            raise HttpError(400, "json: cannot unmarshal array into Go value of type api.JobRegisterRequest")
        return value

    async def gone(self) -> None:
        """Until the client has gone away."""
        while (await self._receive())["type"] != "http.disconnect":
            continue


def go_json_error(data: bytes) -> str:
    """Something like Go's words for bad JSON."""
    first = chr(data.lstrip()[0])
    words = {"n": "null", "t": "true", "f": "false"}
    if first in words:
        literal, text = words[first], data.lstrip().decode("latin-1")
        for got, expected in zip(text[1:], literal[1:], strict=False):
            if got != expected:
                return f"invalid character '{got}' in literal {literal} (expecting '{expected}')"
    return f"invalid character '{first}' looking for beginning of value"
