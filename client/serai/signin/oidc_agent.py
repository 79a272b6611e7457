"""Access tokens of a running oidc-agent (KIT's agent, which this community uses as others use ssh-agent).

It is asked over its UNIX socket (`OIDC_SOCK`) with one JSON object and answers with one; source: the agent's
documentation, "IPC-API". Refresh tokens stay with the agent.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from serai.errors import NoWayIn

LEAST_LIFE_S: Final = 60
DEADLINE_S: Final = 60.0
"""The agent may ask a person first."""

MOST_BYTES: Final = 65_536


async def access_token(socket: str, wanted: Mapping[str, str]) -> str:
    """A token for an account (`{"account": ...}`) or an issuer (`{"issuer": ...}`). Raises NoWayIn."""
    question = {
        "request": "access_token", "min_valid_period": LEAST_LIFE_S, "application_hint": "serai", **wanted,
    }  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE_S):
            said = await _answer(socket, json.dumps(question).encode())
    except (OSError, TimeoutError) as error:
        raise NoWayIn(f"oidc-agent does not answer at {socket}: {error or 'no answer in time'}").then(
            "start it (`oidc-agent`), or unset OIDC_SOCK"
        ) from error
    token = said.get("access_token")
    if said.get("status") == "success" and isinstance(token, str) and token:
        return token
    words = "".join(char for char in str(said.get("error") or "no token in its answer") if char.isprintable())[:300]
    raise NoWayIn(f"oidc-agent gives no token for {next(iter(wanted.values()))}: {words}").then(
        "load the account (`oidc-add NAME`), name it in SERAI_OIDC_ACCOUNT, or `serai login`"
    )


async def _answer(socket: str, question: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(question)
        await writer.drain()
        body = b""
        while len(body) < MOST_BYTES and (chunk := await reader.read(4096)):
            body += chunk
            said = _complete(body)
            if said is not None:
                return said
        return {"error": "its answer was not understood"}
    finally:
        writer.close()


def _complete(body: bytes) -> dict[str, Any] | None:
    """The answer once it is whole: nothing else marks its end."""
    try:
        said = json.loads(body.rstrip(b"\0"))
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
