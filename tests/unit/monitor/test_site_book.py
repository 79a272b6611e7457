"""The monitor's view of the registry: what is known stays known, and who is away is named."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from services.monitor.sites import SiteBook
from shared.errors import Unavailable
from shared.site import Site
from tests.builders import a_site

pytestmark = pytest.mark.fast


class Registry:
    """One that told of its sites and then went away."""

    async def sites(self) -> Sequence[Site]:
        return (a_site(),)

    async def changes(self) -> AsyncIterator[Sequence[Site]]:
        yield (a_site(),)

    async def ready(self) -> None:
        raise Unavailable("Consul at 192.0.2.1 does not answer")


async def test_sites_stay_known_while_the_registry_is_away_and_its_absence_is_told() -> None:
    book = SiteBook(Registry())
    await book.follow()
    async with asyncio.timeout(30):
        await book.ready()
    assert [site.name for site in book.of("prague")] == ["prague"]
    with pytest.raises(Unavailable, match=r"Consul at 192\.0\.2\.1"):
        await book.answers()
