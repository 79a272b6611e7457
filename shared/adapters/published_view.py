"""The view of a SiteRegistry and its readers: who reads gets the view now and again at each change."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from shared.site import Site


class PublishedView:
    """Written by one registry, read by any number. A slow reader is shown the newest view and not the steps to it."""

    def __init__(self, sites: Sequence[Site] = ()) -> None:
        self._sites = tuple(sites)
        self._readers: set[asyncio.Event] = set()

    @property
    def sites(self) -> tuple[Site, ...]:
        return self._sites

    def publish(self, sites: Sequence[Site]) -> None:
        """Wake the readers, if it is another view than before."""
        if (now := tuple(sites)) == self._sites:
            return
        self._sites = now
        for changed in self._readers:
            changed.set()

    async def changes(self) -> AsyncIterator[Sequence[Site]]:
        """For ever."""
        changed = asyncio.Event()
        self._readers.add(changed)
        try:
            while True:
                changed.clear()
                yield self._sites
                await changed.wait()
        finally:
            self._readers.discard(changed)
