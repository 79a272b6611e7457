"""Reading addresses that somebody else wrote, and whether we may go there. Pure: no name is looked up."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$")  # fmt: skip  # noqa: E501
_URL = re.compile(r"^(https?)://(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?/?$")


@dataclass(frozen=True, slots=True)
class Place:
    """Scheme, host (IPv6 without brackets, lower case) and port of a URL without path, user or query."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def place_of(url: str) -> Place | None:
    """The place that a URL names; None where it is anything but `http(s)://host:port`. 80 and 443 go without saying."""
    found = _URL.fullmatch(url) if url.isascii() else None
    if found is None:
        return None
    scheme, host, port = found.group(1), found.group(2).strip("[]").lower(), found.group(3)
    return made(scheme, host, int(port) if port else {"http": 80, "https": 443}[scheme])


def made(scheme: str, host: str, port: int) -> Place | None:
    """A place from its parts; None where host or port cannot be one."""
    if not 1 <= port <= 65535 or not host.isascii():
        return None
    address = _address(host)
    if address is not None:
        return Place(scheme, str(address), port)
    looks_numeric = re.fullmatch(r"[0-9.]+|0[xX].*", host) is not None
    return None if looks_numeric or not _NAME.fullmatch(host) else Place(scheme, host.lower(), port)


def allowed(host: str, rules: Iterable[str]) -> bool:
    """Whether a host stands in a list of addresses, networks, names and `.domain`s."""
    address = _address(host)
    return any(_matches(host.lower(), address, rule.strip().lower()) for rule in rules)


def _matches(host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, rule: str) -> bool:
    if address is None:
        return host == rule or (rule.startswith(".") and host.endswith(rule))
    try:
        return address in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if getattr(found, "scope_id", None) else found
