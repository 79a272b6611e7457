"""The real parts under the services: a broker, databases, sites. Each is opened by a stack and ended with it."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from services.embedded.agents import MHZ_PER_CORE, Agent, open_agents
from services.embedded.folder import DataFolder
from services.embedded.settings import EmbeddedSettings
from services.embedded.sites import read_sites
from services.local.settings import LocalSettings
from shared.adapters.rabbitmq.throwaway import broker


@dataclass(frozen=True, slots=True)
class Sites:
    """The sites' agents, and the file that tells scheduler and monitor of them."""

    agents: Mapping[str, Agent]
    file: Path


async def open_sites(settings: LocalSettings, folder: DataFolder, stack: contextlib.AsyncExitStack) -> Sites:
    """Real Nomad regions, or embedded agents in this process."""
    built_in = read_sites(None)
    embedded = EmbeddedSettings(nomad=settings.nomad, end_tasks=settings.end_tasks)
    agents = await open_agents(built_in, folder, embedded, stack)
    clusters = [{"name": name, "address": agent.address, "region": name} for name, agent in agents.items()]
    rows = {
        "clusters": clusters,
        "sites": [
            {
                "name": site.name, "cluster": site.name, "country": site.country, "vos": list(site.vos),
                "hardware": list(site.hardware), "mhz_per_core": MHZ_PER_CORE,
                "carbon_g_per_kwh": site.carbon_g_per_kwh, "cost_per_core_hour": site.cost_per_core_hour,
            }
            for site in built_in
        ],
    }  # fmt: skip
    file = folder.path / "sites.yaml"
    file.write_text(yaml.safe_dump(rows, sort_keys=False))
    return Sites(agents, file)


async def open_broker(settings: LocalSettings, folder: DataFolder, stack: contextlib.AsyncExitStack) -> str:
    """The URL of a RabbitMQ."""
    if settings.amqp_url:
        return settings.amqp_url
    return await stack.enter_async_context(broker(folder.path / "rabbitmq"))


def private_file(path: Path, content: object) -> Path:
    """A JSON file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)
    return path
