"""The one place that sends HTTP: retries, deadlines, and answers turned into values or typed errors.

Not here: what the routes are (`client.py`), how streams go on after a break (`streaming.py`).
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import httpx2

from serai.errors import ClientError, Fault, NotUnderstood, Problem, Unreachable
from serai.retrying import Patience, pause_before_next
from serai.values import Json

REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods that may be sent twice without harm (RFC 9110, 9.2.2)."""

NOT_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class Bearer(Protocol):
    """Where a connection's access token comes from."""

    async def token(self, refused: str | None = None) -> str | None:
        """The token to send now; `refused` is one that the gateway has just said no to. None = send none."""
        ...


def present_time() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Pace:
    """Time and chance for the retries; tests bring their own. `clock` counts seconds, `now` is the time of day.

    `patience` is for a gateway that was never reached: whoever mistyped its address wants to hear of it soon. `held`
    is for one that has answered before and is away now: it is most likely being started again.
    """

    patience: Patience = field(default_factory=lambda: Patience(attempts=4, total_s=30.0))
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    held: Patience = field(default_factory=lambda: Patience(attempts=1000, total_s=60.0))
    now: Callable[[], datetime] = present_time


class _Always:
    """One token for the whole connection."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def token(self, refused: str | None = None) -> str | None:
        return self._token


class Wire:
    """A connection to one gateway. `timeout_s` bounds each wait for bytes; long waits pass their own.

    A request that is refused with 401 is sent once more when the bearer has another token: that is no retry of a
    failure, but how long commands outlive their token.
    """

    def __init__(
        self, url: str, token: str | Bearer | None, *, transport: httpx2.AsyncBaseTransport | None = None,
        pace: Pace | None = None, timeout_s: float = 30.0, on_break: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self._on_break = on_break
        self.url = url.rstrip("/")
        self.pace = pace or Pace()
        self._reached = self._away = False
        self._bearer: Bearer = _Always(token) if token is None or isinstance(token, str) else token
        headers = {"User-Agent": "serai-client/0.1", "Accept": "application/json"}
        self._http = httpx2.AsyncClient(
            base_url=self.url, headers=headers, timeout=timeout_s, transport=transport, trust_env=transport is None
        )

    async def close(self) -> None:
        await self._http.aclose()

    def notice(self, error: ClientError | None = None) -> None:
        """Tell whoever watches, once a break, that what was there is away and will be tried again."""
        if self._on_break is not None and self._reached and not self._away:
            self._away = True
            elsewhere = isinstance(error, Unreachable) and error.url != self.url
            who = f"the issuer {error.url}" if elsewhere else f"the gateway at {self.url}"  # type: ignore[union-attr]
            self._on_break(f"{who} is away; trying again for {self.pace.held.total_s:g} s")

    def _answered(self) -> None:
        self._reached, self._away = True, False

    @property
    def patience(self) -> Patience:
        """How long to try again at the moment."""
        return self.pace.held if self._reached else self.pace.patience

    async def request(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None, repeatable: bool | None = None, timeout_s: float | None = None,
        form: Mapping[str, str] | None = None, signed: bool = True,
    ) -> httpx2.Response:  # fmt: skip
        """The answer with status 2xx or 304. Raises Problem, Unreachable or NotUnderstood; what the bearer raises.

        `repeatable` says that sending it twice has one effect; by default the method tells. `signed` = with a token.
        """
        again = method in REPEATABLE if repeatable is None else repeatable
        timeout = httpx2.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        asked = self._http.build_request(
            method, path, json=json, data=form, params=present(params), headers=headers, timeout=timeout
        )
        started, tried = self.pace.clock(), 0
        while True:
            tried += 1
            try:
                return await self._once(asked, signed)
            except (Problem, Unreachable) as error:
                pause = self._pause(error, again, tried, self.pace.clock() - started)
                if pause is None:
                    raise
                self.notice(error)
            await self.pace.sleep(pause)

    async def _once(self, asked: httpx2.Request, signed: bool) -> httpx2.Response:
        response = await self._signed(asked) if signed else await self._sent(asked)
        try:
            await response.aread()
        except httpx2.TransportError as error:
            raise unreachable(self.url, error) from error
        finally:
            await response.aclose()
        if response.is_success or response.status_code == 304:
            self._answered()
            return response
        raise problem_of(response)

    async def _signed(self, asked: httpx2.Request) -> httpx2.Response:
        """The answer's head, with the bearer's token; with its next one when the gateway refuses the first."""
        token = await self._bearer.token()
        response = await self._sent(asked, token)
        if response.status_code != 401 or token is None:
            return response
        await response.aread()
        other = await self._bearer.token(refused=token)
        if other in (None, token):
            return response
        return await self._sent(asked, other)

    async def _sent(self, asked: httpx2.Request, token: str | None = None) -> httpx2.Response:
        if token is not None:
            asked.headers["Authorization"] = f"Bearer {token}"
        try:
            return await self._http.send(asked, stream=True)
        except httpx2.TransportError as error:
            raise unreachable(self.url, error) from error

    def _pause(self, error: Problem | Unreachable, again: bool, tried: int, elapsed_s: float) -> float | None:
        sent = not isinstance(error.__cause__, NOT_SENT)
        temporary = error.temporary if isinstance(error, Problem) else True
        if not temporary or (sent and not again):
            return None
        hint = error.retry_after_s if isinstance(error, Problem) else None
        return pause_before_next(
            self.patience, tried=tried, elapsed_s=elapsed_s, chance=self.pace.chance(), retry_after_s=hint
        )

    @asynccontextmanager
    async def stream(
        self, path: str, *, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None,
        read_timeout_s: float | None = 60.0,
    ) -> AsyncIterator[httpx2.Response]:  # fmt: skip
        """An open answer to read from, sent once. Raises as `request`; also while it is read."""
        timeout = httpx2.Timeout(30.0, read=read_timeout_s)
        asked = self._http.build_request("GET", path, params=present(params), headers=headers, timeout=timeout)
        response = await self._signed(asked)
        try:
            if not response.is_success:
                await response.aread()
                raise problem_of(response)
            self._answered()
            yield response
        except httpx2.TransportError as error:
            raise unreachable(self.url, error) from error
        finally:
            await response.aclose()


def json_of(response: httpx2.Response) -> Json:
    """The JSON object of an answer. Raises NotUnderstood when it is something else."""
    try:
        body = response.json()
    except ValueError as error:
        raise NotUnderstood(_stranger(response)) from error
    if not isinstance(body, dict):
        raise NotUnderstood(_stranger(response))
    return body


def present(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Parameters without those that are None or empty."""
    return {name: value for name, value in (params or {}).items() if value is not None and value != []} or None


def unreachable(url: str, error: httpx2.TransportError) -> Unreachable:
    """In words of people; what the libraries say is in the cause."""
    match error:
        case httpx2.TimeoutException():
            why = "no answer in time"
        case httpx2.ConnectError() if "WRONG_VERSION_NUMBER" in str(error):
            why = "what answers there does not speak TLS; is it http:// instead of https://?"
        case httpx2.ConnectError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            why = "its TLS certificate is not trusted here; a CA of your own goes into SSL_CERT_FILE"
        case httpx2.ConnectError():
            why = f"nobody answers there ({error})" if str(error) != _NO_ATTEMPT else "nobody answers there"
        case httpx2.ReadError() | httpx2.RemoteProtocolError():
            why = "the connection broke off"
        case _:
            why = str(error) or type(error).__name__
    return Unreachable(url, why)


_NO_ATTEMPT: Final = "All connection attempts failed"


def problem_of(response: httpx2.Response) -> Problem:
    """A refusal as a Problem; answers that are no problem document (proxies) get one made from their status."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {"title": response.reason_phrase, "detail": _stranger(response)}
    return problem_from(response.status_code, body, _seconds(response.headers.get("retry-after")))


def problem_from(status: int, body: Json, retry_after_s: float | None = None) -> Problem:
    """A problem document as a Problem."""
    faults = [
        Fault(str(item.get("pointer", "")), str(item.get("detail", "")), str(item.get("hint") or ""))
        for item in body.get("errors") or ()
    ]
    return Problem(
        status, type=str(body.get("type", "about:blank")), title=str(body.get("title", "")),
        detail=str(body.get("detail", "")), code=str(body.get("code", "")), errors=faults,
        retry_after_s=retry_after_s, members=body,
    )  # fmt: skip


def _stranger(response: httpx2.Response) -> str:
    return f"HTTP {response.status_code} from {response.request.url}, which is not an answer of a Serai gateway"


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; its date form is not used by the platform and is ignored."""
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None
