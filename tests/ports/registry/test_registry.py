"""SiteRegistry: what is promised of every registry."""

import asyncio

from shared.site import SiteHealth
from tests.ports.registry.worlds import World

PASSING, CRITICAL = SiteHealth.PASSING, SiteHealth.CRITICAL


async def test_the_view_has_every_listed_site_in_the_order_of_the_settings(world: World) -> None:
    assert [site.name for site in await world.registry.sites()] == ["prague", "lyon"]
    await world.all_well()
    assert [site.name for site in await world.registry.sites()] == ["prague", "lyon"]
    assert {(site.country, site.vos) for site in await world.registry.sites()} == {("CZ", ("vo.climate.example",))}


async def test_changes_begin_with_the_view_now_also_for_a_late_reader(world: World) -> None:
    await world.all_well()
    changes = world.registry.changes()
    async with asyncio.timeout(30):
        first = await anext(changes)
    assert tuple(first) == tuple(await world.registry.sites())
    await changes.aclose()  # type: ignore[attr-defined]  # an async generator, as every adapter's is


async def test_each_change_is_shown_to_every_reader(world: World) -> None:
    await world.all_well()
    others = [World(world.registry, world.behind) for _ in range(2)]
    readers = [asyncio.create_task(other.read()) for other in others]
    await world.behind.check("lyon", False)
    for one in [world, *others]:
        assert (await one.shows("lyon", CRITICAL)).health is CRITICAL
        assert one.views[-1]["prague"].health is PASSING
    for reader in readers:
        reader.cancel()


async def test_a_reader_that_is_slow_is_shown_the_newest_view(world: World) -> None:
    await world.all_well()
    changes = world.registry.changes()
    await anext(changes)
    await world.behind.check("lyon", False)
    await world.shows("lyon", CRITICAL)
    await world.behind.check("lyon", True)
    await world.behind.check("prague", False)
    await world.until(lambda view: (view["prague"].health, view["lyon"].health) == (CRITICAL, PASSING))
    newest = {site.name: site.health for site in await anext(changes)}
    assert newest == {"prague": CRITICAL, "lyon": PASSING}


async def test_a_site_whose_check_fails_is_shown_as_critical_and_never_goes_missing(world: World) -> None:
    await world.all_well()
    await world.behind.check("lyon", False)
    lyon = await world.shows("lyon", CRITICAL)
    assert (lyon.country, lyon.vos) == ("CZ", ("vo.climate.example",))
    await world.behind.check("lyon", True)
    await world.shows("lyon", PASSING)
    assert all(set(view) == {"prague", "lyon"} for view in world.views)


async def test_a_site_that_is_not_listed_never_appears(world: World) -> None:
    await world.all_well()
    await world.behind.invent("mallory")
    await world.behind.check("lyon", False)
    await world.shows("lyon", CRITICAL)
    assert {name for view in world.views for name in view} == {"prague", "lyon"}


async def test_a_blip_of_a_check_is_never_shown(world: World) -> None:
    await world.all_well()
    await world.behind.check("prague", False)
    await world.behind.check("prague", True)
    await world.behind.check("lyon", False)
    await world.shows("lyon", CRITICAL)
    await world.behind.check("lyon", True)
    await world.shows("lyon", PASSING)
    assert world.shown("prague") == [PASSING]
    assert world.shown("lyon") == [PASSING, CRITICAL, PASSING]


async def test_a_good_spell_between_two_bad_ones_is_not_shown(world: World) -> None:
    await world.all_well()
    await world.behind.check("lyon", False)
    await world.shows("lyon", CRITICAL)
    await world.behind.check("lyon", True)
    await world.behind.check("lyon", False)
    await world.behind.check("prague", False)
    await world.shows("prague", CRITICAL)
    assert world.shown("lyon") == [PASSING, CRITICAL]


async def test_a_registry_that_was_heard_is_ready(world: World) -> None:
    await world.all_well()
    async with asyncio.timeout(30):
        await world.registry.ready()
