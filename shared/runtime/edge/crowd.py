"""How much each address has open: its connections, or, behind a trusted proxy, its requests that are being answered.

One address is one client, an IPv6 network of 64 bits too: whoever has one address of it has all. One for each listening
service; `wire.py` counts connections, `guard.py` what comes through proxies.
"""

import ipaddress
from collections import Counter
from collections.abc import Collection
from typing import Final

from shared.runtime.edge import heads
from shared.runtime.edge.heads import Fault

FULL: Final = Fault("too_many_requests", "too much is open from this address; close some of it and come again")


class Crowd:
    """At most `most` for each address, 0 = no bound. Of `trusted` proxies nothing is counted: who is behind them is."""

    def __init__(self, most: int, trusted: Collection[object]) -> None:
        self._most = most
        self._trusted = trusted
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> str | None:
        """Where it is counted, to `leave` by; '' when it is not counted, None when there is too much already."""
        if not self._most or not address or heads.is_trusted(address, self._trusted):
            return ""
        client = client_of(address)
        if self._open[client] >= self._most:
            return None
        self._open[client] += 1
        return client

    def leave(self, client: str) -> None:
        if client:
            self._open[client] -= 1
            if self._open[client] <= 0:
                del self._open[client]


def client_of(address: str) -> str:
    """Who counts as one with this address."""
    if ":" not in address:
        return address
    try:
        ip = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
