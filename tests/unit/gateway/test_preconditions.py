"""If-Match and If-None-Match: a job is changed only as its caller has seen it, and not sent again to who has it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from shared.errors import Conflict
from shared.runtime.preconditions import Condition, has_already, tags
from tests.unit.gateway.world import World, a_file, a_world, queued, restarted

pytestmark = pytest.mark.fast

LISTS = [
    ('"5"', [(False, '"5"')]),
    ('W/"5"', [(True, '"5"')]),
    ('"4", W/"5" ,"6"', [(False, '"4"'), (True, '"5"'), (False, '"6"')]),
    ('"a,b", "c"', [(False, '"a,b"'), (False, '"c"')]),
    ('""', [(False, '""')]),
    ('"4",,"5"', [(False, '"4"'), (False, '"5"')]),
    ("5", []),
    ('"4", 5, "6"', [(False, '"4"')]),
    ('w/"5"', []),
    ('"5', []),
    ("", []),
]


@pytest.mark.parametrize(("header", "found"), LISTS, ids=[row[0] for row in LISTS])
def test_lists_of_entity_tags_are_read_by_the_letter(header: str, found: list[tuple[bool, str]]) -> None:
    assert tags(header) == found


def test_a_read_compares_weakly_and_a_change_strongly() -> None:
    assert has_already('W/"5"', '"5"') and has_already("*", '"5"') and not has_already('"55"', '"5"')
    Condition(if_match='"4", "5"').check('"5"')
    Condition(if_match="*").check('"5"')
    Condition(if_none_match='"4"').check('"5"')
    Condition(if_none_match="*").check(None)
    for condition, etag in (
        (Condition(if_match='W/"5"'), '"5"'), (Condition(if_match='"4"'), '"5"'), (Condition(if_match="5"), '"5"'),
        (Condition(if_match="*"), None), (Condition(if_match='"5"'), None), (Condition(if_none_match="*"), '"5"'),
        (Condition(if_none_match='W/"5"'), '"5"'), (Condition('"5"', '"5"'), '"5"'), (Condition(if_match=""), '"5"'),
    ):  # fmt: skip
        with pytest.raises(Conflict) as refused:
            condition.check(etag)
        assert refused.value.code == "precondition_failed"


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


async def etag_of(world: World, job: str) -> str:
    answer = await world.http.get(f"/v1/jobs/{job}", headers=world.as_("alice"))
    return str(answer.headers["etag"])


async def test_a_job_is_cancelled_only_as_it_was_seen(world: World) -> None:
    job = await world.submit()
    seen = await etag_of(world, job)
    await world.tell(queued(job, 1))
    path, now = f"/v1/jobs/{job}", await etag_of(world, job)
    assert now != seen

    for stale in (seen, f"W/{now}", '"x"', now.strip('"')):
        refused = await world.http.delete(path, headers=world.as_("alice", **{"If-Match": stale}))
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert (await world.job(job))["cancel_requested_at"] is None
    assert len(world.auth.grant_questions) == 1, "nothing was asked of auth for it"

    done = await world.http.delete(path, headers=world.as_("alice", **{"If-Match": f'"x", {now}'}))
    assert done.status_code == 202
    again = await world.http.delete(path, headers=world.as_("alice", **{"If-Match": now}))
    assert again.status_code == 412, "it has a new version since"
    assert (await world.http.delete(path, headers=world.as_("alice"))).status_code == 202
    assert len(await world.bus.commands(2)) == 2


async def test_what_happens_while_auth_is_asked_counts(world: World) -> None:
    """The last look is within the transaction that writes."""
    job = await world.submit()
    seen = await etag_of(world, job)
    world.auth.hold = asyncio.Event()
    asking = asyncio.create_task(world.http.delete(f"/v1/jobs/{job}", headers=world.as_("alice", **{"If-Match": seen})))

    async def asked() -> bool:
        return len(world.auth.grant_questions) == 2

    await world.until(asked)
    await world.tell(queued(job, 1))
    world.auth.hold.set()
    assert (await asking).status_code == 412
    assert (await world.job(job))["cancel_requested_at"] is None
    assert not [message for message in world.bus.published if "cancel" in message.type]


async def test_of_two_who_change_the_same_version_at_two_gateways_one_wins(world: World, tmp_path: Path) -> None:
    job = await world.submit()
    seen = await etag_of(world, job)
    async with restarted(tmp_path, world.auth, world.owners, world.bus, world.clock, shared_store=world.store) as other:
        answers = [
            await copy.http.delete(f"/v1/jobs/{job}", headers=copy.as_("alice", **{"If-Match": seen}))
            for copy in (world, other)
        ]
    assert [answer.status_code for answer in answers] == [202, 412]


async def test_jobs_that_are_hidden_or_absent_are_404_whatever_the_condition(world: World) -> None:
    job = await world.submit()
    bodies = []
    for path in (f"/v1/jobs/{job}", f"/v1/jobs/{uuid4()}"):
        for condition in ({}, {"If-Match": '"1"'}, {"If-Match": "*"}, {"If-Match": '"9"'}):
            answer = await world.http.delete(path, headers=world.as_("bob", **condition))
            assert answer.status_code == 404
            bodies.append(answer.content)
    assert len(set(bodies)) == 1


async def test_putting_only_what_is_new_or_only_what_is_there(world: World) -> None:
    path = f"/v1/jobs/{uuid4()}"

    async def put(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await world.http.put(path, json=a_file(), headers=world.as_("alice", **named))).status_code

    assert await put(If_Match="*") == 412
    assert await put(If_Match='"1"') == 412
    assert world.auth.grant_questions == []
    assert await put(If_None_Match="*") == 202
    assert await put(If_None_Match="*") == 412
    assert await put(If_Match="*") == 200
    assert await put(If_Match=await etag_of(world, path.rpartition("/")[2])) == 200
    assert await put(If_Match='"77"') == 412
    assert await put() == 200
    assert world.auth.grant_questions == [1]


@pytest.mark.parametrize("path", ["/v1/jobs/{id}", "/v1/jobs/{id}/spec", "/v1/schema/job", "/v1"])
async def test_what_a_reader_has_is_not_sent_again(world: World, path: str) -> None:
    path = path.replace("{id}", await world.submit())
    first = await world.http.get(path, headers=world.as_("alice"))
    etag = first.headers["etag"]
    assert etag.startswith('"')
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = await world.http.get(path, headers=world.as_("alice", **{"If-None-Match": known}))
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    for other in ('"x"', etag.strip('"'), '"x", "y"'):
        again = await world.http.get(path, headers=world.as_("alice", **{"If-None-Match": other}))
        assert (again.status_code, again.content) == (200, first.content)
    assert (await world.http.get(path, headers=world.as_("alice"))).headers["etag"] == etag
