"""Our Consul agent: the few calls that we make, typed, each with the token and a deadline. Nothing is retried here."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from consul import Check, ConsulException
from consul.base import Consul

from shared.adapters.consul.settings import ConsulSettings
from shared.adapters.consul.transport import Transport
from shared.adapters.token_file import Token
from shared.errors import Unavailable

_THIS_AGENT: Final = "_agent"
"""Consul's word for it."""


class _Consul(Consul):  # type: ignore[misc]  # py-consul has no types: its classes are Any
    """py-consul over our transport, and told everything: it must not look into the environment."""

    def __init__(self, settings: ConsulSettings, transport: Transport) -> None:
        self._transport = transport
        where = urlsplit(settings.address)
        super().__init__(where.hostname, where.port or 0, scheme=where.scheme, verify=True)
        self._token = Token(settings.token.get_secret_value(), settings.token_file)

    @property
    def token(self) -> str | None:
        """py-consul looks here for each call, and prefers what it found in the environment: that is not kept."""
        return self._token.now() or None

    @token.setter
    def token(self, found: object) -> None: ...

    def http_connect(self, *_: Any, **__: Any) -> Transport:
        return self._transport


class ConsulAgent:
    """Raises Unavailable and Misconfigured with the codes of `answers.py`. Shared by registry and services."""

    def __init__(self, settings: ConsulSettings, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.settings = settings
        self._consul = _Consul(settings, Transport(settings, transport))

    async def copies(self, service: str, *, datacenter: str | None, index: int) -> tuple[int, Sequence[Any]]:
        """The copies of a service with their checks, as Consul's JSON, and its index.

        With an index it blocks until something changes or `wait_s` is over. Read from the datacenter's leader, not
        stale: a datacenter without one is not answered for. An agent from 1.10 on would answer out of its own copy
        (`use_streaming_backend`), which goes on showing what it knew of a datacenter that is silent or without leader.
        It does not when asked for an order; the order itself is of no use to us.
        """
        wait = f"{self.settings.wait_s}s"
        try:
            found, entries = await self._consul.health.service(
                service, dc=datacenter, index=index, wait=wait, near=_THIS_AGENT
            )
            return int(found), entries if isinstance(entries, list) else []
        except (ConsulException, ValueError) as unclear:
            raise Unavailable(
                f"Consul's answer about {service} cannot be read: {unclear}", code="consul_unclear"
            ) from unclear

    async def leader(self) -> str:
        """The leader of our agent's own datacenter, empty without one. Proves that the agent answers, not the token."""
        try:
            found = await self._consul.status.leader()
        except ConsulException as unclear:
            raise Unavailable(f"Consul's answer cannot be read: {unclear}", code="consul_unclear") from unclear
        return found if isinstance(found, str) else ""

    async def register(
        self, service: str, instance: str, address: str, port: int, *, meta: Mapping[str, str], check: Mapping[str, Any]
    ) -> None:
        """Register a copy of a service at our agent; the same again changes nothing."""
        await self._consul.agent.service.register(
            service, service_id=instance, address=address, port=port, meta=dict(meta), check=dict(check),
            replace_existing_checks=True,
        )  # fmt: skip

    async def deregister(self, instance: str) -> None:
        """Take a copy out; harmless when the agent does not know it."""
        await self._consul.agent.service.deregister(instance)

    async def registered(self, instance: str) -> Mapping[str, Any] | None:
        """What our agent has registered under this id. (By the list: py-consul's call for one sends no token.)"""
        try:
            found = await self._consul.agent.services(filter_expr=f"ID == {json.dumps(instance)}")
        except ConsulException as unclear:
            raise Unavailable(f"Consul's answer cannot be read: {unclear}", code="consul_unclear") from unclear
        entry = found.get(instance) if isinstance(found, dict) else None
        return entry if isinstance(entry, dict) else None

    async def aclose(self) -> None:
        await self._consul.http.close()


def http_check(url: str, *, interval_s: float, timeout_s: float, forget_after_s: float) -> dict[str, Any]:
    """A check that our agent makes: GET `url`, 2xx is passing; a copy critical for `forget_after_s` is taken out."""
    found: dict[str, Any] = Check.http(
        url, f"{interval_s:g}s", timeout=f"{timeout_s:g}s", deregister=f"{forget_after_s:g}s"
    )
    return found
