"""`serai-platform fault SITE KIND`: break a site of a running embedded platform on purpose.

Finds the agent through the data folder of the platform and speaks to its `/serai/fault`, which only embedded agents
have and which answers on loopback alone.
"""

import json
from pathlib import Path
from typing import Any

import httpx2 as httpx

from shared.errors import Misconfigured, Refused, Unavailable


async def inject(data: Path, site: str, kind: str, arguments: list[str]) -> None:
    """Print the kinds of fault (without `kind`), or inject one. Raises Misconfigured, Refused, Unavailable."""
    ports = _agent_ports(data)
    if site and site not in ports:
        raise Misconfigured(f"no site {site!r} here; there are: {', '.join(sorted(ports))}")
    address = f"http://127.0.0.1:{ports[site] if site else next(iter(ports.values()))}/serai/fault"
    body = {"kind": kind, **_arguments(arguments)} if kind else None
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            answer = await (client.post(address, json=body) if body else client.get(address))
    except httpx.TransportError as error:
        raise Unavailable(f"nothing answers at {address}: is the platform running? (make up)") from error
    if answer.status_code >= 400:
        raise Refused(f"{site}: {answer.text.strip()}")
    print(f"{site}: {kind} injected" if body else _listed(answer.json()))


def _agent_ports(data: Path) -> dict[str, int]:
    file = data / "platform.json"
    if not file.exists():
        raise Misconfigured(f"no embedded platform has its data in {data}; start one (make up), or say --data FOLDER")
    ports = json.loads(file.read_text()).get("ports", {})
    return {name.removeprefix("site/"): port for name, port in ports.items() if name.startswith("site/")}


def _arguments(words: list[str]) -> dict[str, Any]:
    """`seconds=5 deny=true job=abc` as JSON values where they are, else as text."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise Misconfigured(f"{word!r}: an argument of a fault is written name=value")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _listed(kinds: Any) -> str:
    rows = kinds.get("kinds", kinds) if isinstance(kinds, dict) else kinds
    return "\n".join(f"{name:<20} {sentence}" for name, sentence in sorted(dict(rows).items()))
