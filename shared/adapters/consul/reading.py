"""Consul's JSON about the copies of a service, made into values. Pure and total: nothing in it is believed to fit."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.adapters.consul.answers import one_line
from shared.site import SiteHealth

_CHECKS: Final = {
    "passing": SiteHealth.PASSING, "warning": SiteHealth.WARNING, "critical": SiteHealth.CRITICAL,
    "maintenance": SiteHealth.CRITICAL,
}  # fmt: skip
WORST_LAST: Final = (SiteHealth.PASSING, SiteHealth.WARNING, SiteHealth.CRITICAL)


@dataclass(frozen=True, slots=True)
class Instance:
    """One copy of a service. `health` is the worst of its checks and its node's; `says` is that check's words."""

    id: str
    node: str
    address: str
    port: int
    tags: frozenset[str]
    meta: Mapping[str, str]
    health: SiteHealth
    says: str = ""


def instances_of(entries: Iterable[Any]) -> tuple[Instance, ...]:
    """The copies in an answer, by node and id; what is not a copy of a service is left out."""
    found = [instance for entry in entries if (instance := _instance(entry)) is not None]
    return tuple(sorted(found, key=lambda instance: (instance.node, instance.id)))


def _instance(entry: Any) -> Instance | None:
    node, service = _map(_map(entry).get("Node")), _map(_map(entry).get("Service"))
    instance, port = _text(service.get("ID")), service.get("Port")
    if not instance or isinstance(port, bool) or not isinstance(port, int):
        return None
    health, says = _worst(_map(entry).get("Checks"))
    tags, meta = service.get("Tags"), service.get("Meta")
    return Instance(
        id=instance,
        node=_text(node.get("Node")),
        address=_text(service.get("Address")) or _text(node.get("Address")),
        port=port,
        tags=frozenset(tag for tag in (tags if isinstance(tags, list) else []) if isinstance(tag, str)),
        meta={key: value for key, value in _map(meta).items() if isinstance(key, str) and isinstance(value, str)},
        health=health,
        says=says,
    )


def _worst(checks: Any) -> tuple[SiteHealth, str]:
    """A status that Consul does not have counts as critical; no check at all as passing, as with Consul."""
    worst, says = SiteHealth.PASSING, ""
    for check in checks if isinstance(checks, list) else []:
        status = _CHECKS.get(_text(_map(check).get("Status")), SiteHealth.CRITICAL)
        if WORST_LAST.index(status) > WORST_LAST.index(worst):
            output = one_line(_text(_map(check).get("Output")) or _text(_map(check).get("Notes")))
            worst, says = status, f"{one_line(_text(_map(check).get('Name')), 60)}: {output}".strip(": ")
    return worst, says


def _map(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
