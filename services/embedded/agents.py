"""The sites' agents: embedded ones, or a real Nomad region for each site where a `nomad` is at hand."""

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from services.embedded.agent import AgentSettings, EmbeddedAgent
from services.embedded.folder import FIRST_AGENT_PORT, DataFolder
from services.embedded.settings import EmbeddedSettings
from services.embedded.sites import EmbeddedSite
from shared.adapters.nomad import local_binary
from shared.adapters.nomad.local_agent import LocalRegion
from shared.adapters.nomad.local_config import RegionSettings
from shared.adapters.nomad.local_trust import Authority
from shared.errors import Misconfigured
from shared.namespaces import DEFAULT
from shared.runtime.clock import system_clock

HOST: Final = "127.0.0.1"
MHZ_PER_CORE: Final = 1000
_FIRST_TASK_PORT: Final = 25_000
_TASK_PORTS: Final = 300
"""Ports for the tasks of each real region: two that share a machine must not share ports."""


class Agent(Protocol):
    """A site's agent that runs."""

    @property
    def address(self) -> str: ...


@runtime_checkable
class GuardedAgent(Agent, Protocol):
    """One with ACLs and TLS: what the adapter must be told to be let in."""

    def trusting(self) -> Mapping[str, Any]:
        """Settings of the cluster, beside name, address and region."""


async def open_agents(
    sites: Sequence[EmbeddedSite], folder: DataFolder, settings: EmbeddedSettings, stack: contextlib.AsyncExitStack,
    *, guarded: bool = False,
) -> Mapping[str, Agent]:  # fmt: skip
    """An agent for each site, ready, stopped by the stack; real ones are `guarded` by ACLs and TLS if that is wanted.

    Raises Misconfigured when a nomad was asked for in vain.
    """
    binary = await _binary(settings.nomad)
    if binary is None:
        return {site.name: await _embedded(site, folder, settings, stack) for site in sites}
    if settings.mock:
        raise Misconfigured("--mock needs embedded agents: leave out --nomad")
    folder.path.chmod(0o711)  # Nomad runs as another user; what is secret here is closed file by file
    authority = Authority(folder.path / "nomad", system_clock()) if guarded else None
    regions = {site.name: _region(binary, site, folder, number, authority) for number, site in enumerate(sites)}
    for region in regions.values():
        stack.push_async_callback(region.stop, end_tasks=settings.end_tasks)
    await asyncio.gather(*(region.start() for region in regions.values()))
    return regions


async def _binary(asked: str) -> Path | None:
    if asked == "embedded":
        return None
    found = local_binary.installed("" if asked == "auto" else asked)
    named = os.environ.get("NOMAD_BIN", "") if asked == "auto" else asked
    if found is None and named:
        raise Misconfigured(f"there is no nomad that can be run at {named}: name the binary, or use --nomad embedded")
    if found is not None:
        await local_binary.check(found)
    return found


def _region(
    binary: Path, site: EmbeddedSite, folder: DataFolder, number: int, authority: Authority | None
) -> LocalRegion:
    first = FIRST_AGENT_PORT
    names = (f"site/{site.name}", *(f"site/{site.name}/{part}" for part in ("rpc", "serf", "client")))
    http, rpc, serf, client = (folder.port(name, first) for name in names)
    task_ports = _FIRST_TASK_PORT + number * _TASK_PORTS
    return LocalRegion(
        binary,
        RegionSettings(
            name=site.name, folder=folder.path / "nomad" / site.name, ports=(http, rpc, serf, client),
            cpu_mhz=round(site.cores * MHZ_PER_CORE), memory_mib=site.memory_mib, meta={"country": site.country},
            namespaces=site.namespaces, task_ports=(task_ports, task_ports + _TASK_PORTS - 1),
            guarded=authority is not None,
        ),
        authority,
    )  # fmt: skip


async def _embedded(
    site: EmbeddedSite, folder: DataFolder, settings: EmbeddedSettings, stack: contextlib.AsyncExitStack
) -> EmbeddedAgent:
    drivers = ("raw_exec", "exec", "mock_driver") if settings.mock else ("raw_exec", "exec")
    agent = EmbeddedAgent(
        AgentSettings(
            name=site.name, region=site.name, data_dir=folder.path / "sites" / site.name, host=HOST,
            port=folder.port(f"site/{site.name}", FIRST_AGENT_PORT), cpu_mhz=round(site.cores * MHZ_PER_CORE),
            memory_mb=site.memory_mib, disk_mb=site.disk_mib, country=site.country, drivers=drivers,
            gpus=tuple(("nvidia", "gpu", model, count) for model, count in site.gpus.items()),
            client_tick_s=settings.client_tick_s, end_tasks_at_stop=settings.end_tasks, event_buffer_size=1000,
            namespaces=(DEFAULT, *site.namespaces),
        )
    )  # fmt: skip
    await agent.start()
    stack.push_async_callback(agent.stop)
    return agent
