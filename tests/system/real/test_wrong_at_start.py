"""A service whose dependency is not as needed says which one, what it tried and how to mend it; it goes on once mended.

While it waits it answers: `/healthz` that it lives, `/readyz` what it waits for, everything else that it starts. It
never works half, and nobody needs to start it again.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest
import pytest_asyncio

from tests.system.real import marks
from tests.system.real.ground import Ground, command, ground, starting
from tests.system.real.wrongs import WRONGS

pytestmark = [mark for mark in marks.REAL if mark.name != "asyncio"] + [pytest.mark.asyncio(loop_scope="module")]

CASES = [(name, service) for name, wrong in WRONGS.items() for service in wrong.services]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with ground(tmp_path_factory.mktemp("ground")) as made:
        yield made


@pytest.mark.parametrize(("name", "service"), CASES)
async def test_a_service_says_what_is_wrong_and_goes_on_by_itself_once_it_is_mended(
    parts: Ground, name: str, service: str
) -> None:
    wrong = WRONGS[name]
    story = cast(Any, wrong.story(parts, await parts.good(service)))
    async with aclosing(story), starting(parts, service, await anext(story)) as process:
        said = await process.says(wrong.dependency, *wrong.says)
        assert said["status"] == "starting"
        await answers_that_it_starts(process.http, process.address)
        await anext(story, None)
        said = await process.opens()
        assert said["checks"].get(wrong.dependency, "ok") == "ok"
        assert process.told.count('"waits_for"') >= 1
        for words in wrong.says:
            assert words in process.told
        assert "Traceback" not in process.told


async def answers_that_it_starts(http: Any, address: str) -> None:
    assert (await http.get(f"{address}/healthz")).status_code == 200
    assert (await http.get(f"{address}/readyz")).status_code == 503
    other = await http.get(f"{address}/v1/jobs")
    assert (other.status_code, other.json()["code"]) == (503, "unavailable")
    assert int(other.headers["Retry-After"]) > 0


async def test_services_that_miss_another_service_say_so_and_take_work_when_it_is_there(parts: Ground) -> None:
    auth, gateway = await parts.good("auth"), await parts.good("gateway")
    gateway["SERAI_AUTH_URL"] = f"http://127.0.0.1:{auth['SERAI_PORT']}"
    async with starting(parts, "gateway", gateway) as waiting:
        await waiting.says("auth", "auth")
        async with starting(parts, "auth", auth) as there:
            await there.opens()
            await waiting.says("auth", "ok")


async def test_databases_are_looked_at_and_brought_up_by_the_operators_command(parts: Ground) -> None:
    for service in ("auth", "gateway", "monitor", "scheduler"):
        await parts.database.database(f"all_{service}")
    url = ("--database-url", parts.database.url("all_{service}"))
    empty = await command(parts, "db", "check", *url)
    assert empty.code == 1 and empty.out.count("EMPTY; run `serai-platform db upgrade`") == 4, empty.told
    made = await command(parts, "db", "upgrade", *url)
    assert made.code == 0 and made.out.count(": made, is at ") == 4, made.told
    good = await command(parts, "db", "check", *url)
    assert good.code == 0 and good.out.count("as this release expects") == 4, good.told
    again = await command(parts, "db", "upgrade", *url)
    assert again.code == 0 and again.out.count("nothing to do") == 4, again.told
    await parts.sql("UPDATE alembic_version SET version_num = '9999_later'", "all_gateway")
    newer = await command(parts, "db", "check", *url)
    assert newer.code == 1 and newer.out.count("gateway: NEWER, at 9999_later") == 1, newer.told
    refused = await command(parts, "db", "upgrade", *url, "--service", "gateway")
    assert refused.code == 78 and "run the release that wrote it" in refused.err, refused.told
