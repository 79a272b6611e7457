"""A cluster asked for more at a time than it may be asked over connections: who waits, and how many are counted."""

import asyncio
from contextlib import aclosing
from typing import Any, Final, cast

from shared.engine import Heartbeat, Presence
from shared.ids import new_job_id
from tests.between import between
from tests.ports.engine.site import an_order, of_address

HALF: Final = 5
"""Of the 10 that ClusterSettings allows by default; one of each half only asks how the cluster is."""
MOST: Final = 2 * HALF + 1
"""With the event stream."""


async def asked_for_much_at_a_time(address: str) -> None:
    """A hundred calls at a time at each port, beside the stream and the question how the cluster is."""
    async with (
        between(address) as proxy,
        of_address(proxy.address, page_size=1000) as site,
        aclosing(cast("Any", site.watch.stream(0))) as stream,
    ):
        assert await anext(stream) == Heartbeat()
        asked = (site.watch.presence(f"{new_job_id()}-001", "default") for _ in range(100))
        found, _ = await asyncio.gather(asyncio.gather(*asked), site.watch.ready())
        assert set(found) == {Presence.ABSENT}
        assert proxy.most <= HALF + 1, "the monitor's half, and its stream"
        mock = {"metadata": {"serai.mock": "run_for=0s"}}
        await asyncio.gather(*(site.submitted(an_order(**mock)) for _ in range(100)))
        assert proxy.most <= MOST
        assert proxy.connections <= MOST, "they are kept and used again"
