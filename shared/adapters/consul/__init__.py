"""Consul as the SiteRegistry, and as the place where our own services find each other. Stands on py-consul."""

from shared.adapters.consul.agent import ConsulAgent
from shared.adapters.consul.registry import ConsulRegistry
from shared.adapters.consul.services import ConsulServices, Copy
from shared.adapters.consul.settings import ConsulSettings, ListedSite

__all__ = ["ConsulAgent", "ConsulRegistry", "ConsulServices", "ConsulSettings", "Copy", "ListedSite"]
