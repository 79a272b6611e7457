"""A client of auth's routes for people, for the operators' commands: one token, plain errors, no retries."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx

from shared.errors import Misconfigured, Refused, Unavailable

PAGE: Final = 1_000


class AuthClient:
    """Asks auth as one administrator."""

    def __init__(self, url: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=10, trust_env=False, transport=transport
        )

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The answer. Raises Refused with auth's words, Unavailable when there is none."""
        try:
            answer = self._client.request(method, path, **more)
        except httpx.TransportError as error:
            raise Unavailable(f"auth at {self._url} does not answer: {error!r}") from error
        if answer.status_code >= 400:
            raise Refused(_words(answer), code=str(answer.status_code))
        return answer

    def records(self, after: int = 0) -> tuple[dict[str, Any], dict[str, Any], Iterator[dict[str, Any]]]:
        """Anchor and head of the audit chain, and every record between them behind a position."""
        first = self.ask("GET", "/v1/audit", params={"after": after, "limit": PAGE}).json()
        return first["anchor"], first["head"], self._pages(first, first["head"]["position"])

    def _pages(self, page: dict[str, Any], last: int) -> Iterator[dict[str, Any]]:
        while page["records"]:
            yield from (each for each in page["records"] if each["position"] <= last)
            after = page["records"][-1]["position"]
            if after >= last:
                return
            page = self.ask("GET", "/v1/audit", params={"after": after, "limit": PAGE}).json()


def _words(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError):
        return f"auth answered {answer.status_code}"


def connect(url: str, data: Path, person: str) -> AuthClient:
    """A client from what the operator gave: an address and `SERAI_TOKEN`, or an embedded platform and a demo user.

    Raises Misconfigured, saying what to set.
    """
    kept = data / "platform.json"
    ports = json.loads(kept.read_text()).get("ports", {}) if kept.exists() else {}
    if not url and "auth" not in ports:
        raise Misconfigured(
            "where is auth? Say --auth URL (or SERAI_AUTH_URL), or --data with the folder of a running embedded "
            f"platform ({data} is none)"
        )
    token = os.environ.get("SERAI_TOKEN", "")
    if not token and person and "issuer" in ports:
        token = _demo_token(f"http://127.0.0.1:{ports['issuer']}", person)
    if not token:
        raise Misconfigured(
            "who are you? Set SERAI_TOKEN to an administrator's access token, or say --as with a demo user"
        )
    return AuthClient(url or f"http://127.0.0.1:{ports['auth']}", token)


def _demo_token(issuer: str, person: str) -> str:
    try:
        answer = httpx.post(f"{issuer}/demo/token", data={"user": person}, timeout=5, trust_env=False)
    except httpx.TransportError as error:
        raise Unavailable(f"the development issuer at {issuer} does not answer: is the platform running?") from error
    if answer.status_code != 200:
        raise Misconfigured(_words(answer))
    return str(answer.json()["access_token"])
