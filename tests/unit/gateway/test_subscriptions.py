"""Histories of subscriptions: what reaches an outsider's queue, in which order, and how it all ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.gateway import event_log
from shared.contracts.commands import Principal
from shared.contracts.events import JobPlaced, JobSucceeded, SiteUnreachable
from shared.contracts.subscriptions import Letter
from shared.runtime.clock import micros
from tests.builders import BOB, NOON, VO
from tests.unit.gateway.world import MEMBER, OTHER_VO, World, a_world, context, job_event, queued, restarted

pytestmark = pytest.mark.fast
QUICK: dict[str, Any] = {"subscription_recheck_s": 0.02}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, **QUICK) as made:
        yield made


async def ask(world: World, method: str, path: str = "", token: str = "alice", **more: Any) -> Any:
    """The answer's document, None for 204."""
    answer = await world.http.request(method, f"/v1/subscriptions{path}", headers=world.as_(token), **more)
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


async def subscribe(world: World, token: str = "alice", **fields: Any) -> dict[str, Any]:
    document: dict[str, Any] = await ask(world, "POST", token=token, json={"vo": VO} | fields)
    return document


async def refusal(world: World, token: str = "alice", **fields: Any) -> tuple[int, str, str]:
    answer = await world.http.post("/v1/subscriptions", json={"vo": VO} | fields, headers=world.as_(token))
    problem = answer.json()
    return answer.status_code, problem["code"], problem["detail"]


async def letters(world: World, sub: dict[str, Any], count: int) -> list[Letter]:
    """So many letters out of its queue, once they are there."""

    async def there() -> bool:
        return len(world.subscribers.queues[sub["queue"]].letters) >= count

    await world.until(there)
    return world.subscribers.read(sub["queue"], count)


async def ended(world: World, sub: dict[str, Any], token: str = "alice") -> str:
    """Why it has ended, once it has."""
    found: dict[str, Any] = {}

    async def over() -> bool:
        found.update(await ask(world, "GET", f"/{sub['id']}", token))
        return bool(found["state"] == "ended")

    await world.until(over)
    return str(found["reason"])


async def rounds(world: World, count: int, when: Callable[[], bool] = lambda: True) -> None:
    """So many more questions to auth, one in each round of looking after all; counted from when `when` holds."""

    async def begun() -> bool:
        return when()

    await world.until(begun)
    before = len(world.auth.remembered_questions)

    async def looked() -> bool:
        return len(world.auth.remembered_questions) >= before + count

    await world.until(looked)


def told(letter: Letter) -> tuple[str, str]:
    """(kind, job)"""
    event = orjson.loads(letter.body)
    return letter.type.removeprefix("eu.serai.").removesuffix(".v1"), event["data"].get("job_id", "")


async def a_run(world: World, token: str = "alice", **fields: Any) -> str:
    """A job that was queued, placed and succeeded."""
    job = await world.submit(token, **fields)
    await world.tell(
        queued(job), job_event(JobPlaced, job, 2, attempt=1, site="prague"), job_event(JobSucceeded, job, 3)
    )
    return job


# -- what is heard ------------------------------------------------------------------------------------------------


async def test_a_subscriber_hears_every_event_of_its_jobs_once_in_order_and_each_names_the_one_before(
    world: World,
) -> None:
    sub = await subscribe(world)
    job = await a_run(world)
    heard = await letters(world, sub, 3)
    assert [told(each) for each in heard] == [("job.queued", job), ("job.placed", job), ("job.succeeded", job)]
    assert heard[0].previous_id == sub["position"]
    assert [each.previous_id for each in heard[1:]] == [each.event_id for each in heard[:-1]]


async def test_a_member_hears_of_own_jobs_only_and_a_manager_of_all_or_of_own_ones_as_wished(world: World) -> None:
    hers, his, managers = await subscribe(world), await subscribe(world, "bob"), await subscribe(world, "carol")
    managers_own = await subscribe(world, "carol", own=True)
    alices, bobs, carols = [await a_run(world, token) for token in ("alice", "bob", "carol")]
    assert {told(each)[1] for each in await letters(world, hers, 3)} == {alices}
    assert {told(each)[1] for each in await letters(world, his, 3)} == {bobs}
    assert {told(each)[1] for each in await letters(world, managers, 9)} == {alices, bobs, carols}
    assert {told(each)[1] for each in await letters(world, managers_own, 3)} == {carols}
    for sub in (hers, his, managers, managers_own):
        assert world.subscribers.queues[sub["queue"]].letters == []


async def test_filters_choose_by_state_and_label(world: World) -> None:
    by_state, by_label = await subscribe(world, states=["succeeded"]), await subscribe(world, labels={"run": "7"})
    plain, labelled = await a_run(world), await a_run(world, labels={"run": "7"})
    assert [told(each) for each in await letters(world, by_state, 2)] == [
        ("job.succeeded", plain), ("job.succeeded", labelled),
    ]  # fmt: skip
    assert {told(each)[1] for each in await letters(world, by_label, 3)} == {labelled}
    assert world.subscribers.queues[by_label["queue"]].letters == []


async def test_a_vo_is_told_of_the_sites_that_its_jobs_are_at(world: World) -> None:
    world.auth.contexts["dora"] = context(Principal(issuer=BOB.issuer, subject="dora"), vo=OTHER_VO)
    sub, other = await subscribe(world), await subscribe(world, "dora", vo=OTHER_VO)
    await world.tell(SiteUnreachable(site="prague", vo=VO, occurrence=1, since=NOON))
    assert [told(each)[0] for each in await letters(world, sub, 1)] == ["site.unreachable"]
    assert world.subscribers.queues[other["queue"]].letters == []


# -- where it begins ----------------------------------------------------------------------------------------------


async def test_a_subscriber_goes_on_behind_the_event_it_had_last(world: World) -> None:
    first = await subscribe(world)
    job = await a_run(world)
    heard = await letters(world, first, 3)
    again = await subscribe(world, **{"from": heard[0].event_id})
    assert [told(each) for each in await letters(world, again, 2)] == [("job.placed", job), ("job.succeeded", job)]


async def test_a_subscription_may_begin_at_a_time(world: World) -> None:
    old = await a_run(world)
    world.clock.forward(60)
    new = await a_run(world)
    late = await subscribe(world, **{"from": "2026-11-24T12:00:30Z"})
    early = await subscribe(world, **{"from": "2026-11-24T13:00:00+01:00"})
    now = await subscribe(world)
    assert {told(each)[1] for each in await letters(world, late, 3)} == {new}
    assert {told(each)[1] for each in await letters(world, early, 6)} == {old, new}
    assert world.subscribers.queues[now["queue"]].letters == []


async def test_events_that_are_not_kept_any_more_are_told_as_a_gap_before_all_else(world: World) -> None:
    job = await a_run(world)
    await world.store.transact(lambda connection: event_log.forget(connection, micros(world.clock()) + 1, 2))
    epoch = (await world.store.read(event_log.state)).epoch
    sub = await subscribe(world, **{"from": f"{epoch}-0"})
    gap, rest = await letters(world, sub, 2)
    assert gap.type == "eu.serai.subscription.gap.v1"
    assert orjson.loads(gap.body)["data"] == {
        "reason": "too_old", "last_event_id": f"{epoch}-0", "resumed_at": f"{epoch}-2",
    }  # fmt: skip
    assert (told(rest), rest.previous_id) == (("job.succeeded", job), gap.event_id)


async def test_an_id_of_another_log_is_told_as_a_gap_though_nothing_happens(world: World) -> None:
    sub = await subscribe(world, **{"from": "abad1dea-7"})
    (gap,) = await letters(world, sub, 1)
    assert orjson.loads(gap.body)["data"]["reason"] == "other_log"


# -- full queues, brokers away, gateways that die -----------------------------------------------------------------


async def test_a_full_queue_loses_nothing_and_holds_up_nobody(tmp_path: Path) -> None:
    async with a_world(tmp_path, **QUICK, subscription_length=10) as world:
        slow, quick = await subscribe(world), await subscribe(world)
        jobs = [await a_run(world) for _ in range(6)]
        assert len(await letters(world, quick, 10)) == 10
        assert len(await letters(world, quick, 8)) == 8
        assert len(world.subscribers.queues[slow["queue"]].letters) == 10
        heard = await letters(world, slow, 10) + await letters(world, slow, 8)
        assert [told(each)[1] for each in heard] == [job for job in jobs for _ in range(3)]
        assert [each.previous_id for each in heard[1:]] == [each.event_id for each in heard[:-1]]


async def test_a_queue_that_refuses_holds_up_nobody_else(world: World) -> None:
    bad, good = await subscribe(world), await subscribe(world)
    world.subscribers.refuses.add(bad["queue"])
    await a_run(world)
    assert len(await letters(world, good, 3)) == 3
    world.subscribers.refuses.clear()
    assert len(await letters(world, bad, 3)) == 3


async def test_what_happens_while_the_broker_is_away_is_told_when_it_is_back(world: World) -> None:
    sub = await subscribe(world)
    world.subscribers.away = True
    job = await a_run(world)
    assert (await refusal(world))[:2] == (503, "unavailable")
    world.subscribers.away = False
    assert [told(each) for each in await letters(world, sub, 3)] == [
        ("job.queued", job), ("job.placed", job), ("job.succeeded", job),
    ]  # fmt: skip


async def test_a_gateway_that_starts_again_goes_on_where_it_was(tmp_path: Path) -> None:
    async with a_world(tmp_path, **QUICK) as world:
        sub = await subscribe(world)
        await a_run(world)
        before = await letters(world, sub, 3)
        job = await world.submit()
    async with restarted(
        tmp_path, world.auth, world.owners, world.bus, world.clock, subscribers=world.subscribers, **QUICK
    ) as again:
        await again.tell(queued(job))
        (after,) = await letters(again, sub, 1)
    assert (told(after), after.previous_id) == (("job.queued", job), before[-1].event_id)


@asynccontextmanager
async def a_second_copy(world: World, folder: Path) -> AsyncIterator[World]:
    async with restarted(
        folder, world.auth, world.owners, world.bus, world.clock, shared_store=world.store,
        subscribers=world.subscribers, **QUICK,
    ) as second:  # fmt: skip
        yield second


async def test_of_two_copies_one_feeds_and_a_subscription_made_at_either_is_fed_once(
    world: World, tmp_path: Path
) -> None:
    async with a_second_copy(world, tmp_path) as second:
        at_first, at_second = await subscribe(world), await subscribe(second)
        await a_run(world)
        assert len(await letters(world, at_first, 3)) == len(await letters(world, at_second, 3)) == 3
        await ask(second, "DELETE", f"/{at_first['id']}")
        assert await ended(world, at_first) == "you deleted it"
    assert [len(queue.letters) for queue in world.subscribers.queues.values()] == [0]


# -- rights that end ----------------------------------------------------------------------------------------------


async def test_a_suspended_subscriber_hears_nothing_more_and_loses_queue_and_login(world: World) -> None:
    sub, other = await subscribe(world), await subscribe(world, "bob")
    world.auth.refusals["alice"] = "your access is suspended"
    assert "suspended" in await ended(world, sub)
    await a_run(world, "bob")
    await letters(world, other, 3)
    assert sub["queue"] not in world.subscribers.queues


@pytest.mark.parametrize("hit", ["workflows", "token-7"])
async def test_a_subscription_ends_with_the_client_or_the_token_that_made_it(world: World, hit: str) -> None:
    world.auth.contexts["alice"] = world.auth.contexts["alice"].model_copy(
        update={"client": "workflows", "token_id": "token-7"}
    )
    sub = await subscribe(world)
    world.auth.refusals[hit] = "it is suspended"
    assert await ended(world, sub) == "it is suspended"


async def test_who_leaves_the_vo_hears_nothing_more_of_it(world: World) -> None:
    sub = await subscribe(world, "bob")
    world.auth.contexts["bob"] = world.auth.contexts["stranger"] = context(BOB, vo=OTHER_VO)
    assert VO in await ended(world, sub, "bob")


async def test_a_manager_who_becomes_a_member_hears_of_own_jobs_only(world: World) -> None:
    sub = await subscribe(world, "carol")
    alices = await a_run(world)
    assert told((await letters(world, sub, 3))[0])[1] == alices
    carol = world.auth.contexts["carol"].principal
    world.auth.contexts["carol"] = context(carol, verbs=MEMBER)
    questions = len(world.auth.remembered_questions)

    async def asked_again() -> bool:
        return len(world.auth.remembered_questions) >= questions + 2

    await world.until(asked_again)
    await a_run(world)
    own = await a_run(world, "carol")
    assert {told(each)[1] for each in await letters(world, sub, 3)} == {own}


async def test_while_auth_is_away_feeds_go_on_for_a_while_and_then_wait(tmp_path: Path) -> None:
    async with a_world(tmp_path, **QUICK, stale_context_s=60) as world:
        sub = await subscribe(world)
        jobs = [await world.submit() for _ in range(2)]
        world.auth.away = True
        await world.tell(queued(jobs[0]))
        assert len(await letters(world, sub, 1)) == 1
        world.clock.forward(61)
        await world.tell(queued(jobs[1]))
        assert world.subscribers.queues[sub["queue"]].letters == []
        world.auth.away = False
        assert told((await letters(world, sub, 1))[0]) == ("job.queued", jobs[1])


# -- logins, idleness, the end ------------------------------------------------------------------------------------


async def test_a_login_is_good_for_an_hour_and_renewed_without_losing_a_letter(world: World) -> None:
    sub = await subscribe(world)
    queue = world.subscribers.queues[sub["queue"]]
    assert queue.password == sub["connection"]["password"]
    world.clock.forward(3_600)

    async def locked() -> bool:
        return queue.password is None

    await world.until(locked)
    assert world.subscribers.closed == [sub["queue"]]
    world.auth.contexts["alice"] = world.auth.contexts["alice"].model_copy(
        update={"expires_at": world.clock().replace(hour=23)}
    )
    job = await world.submit()
    await world.tell(queued(job))
    renewed = await ask(world, "POST", f"/{sub['id']}:renew")
    assert queue.password == renewed["connection"]["password"] != sub["connection"]["password"]
    assert told((await letters(world, sub, 1))[0]) == ("job.queued", job)


async def test_a_queue_that_nobody_reads_ends_and_one_that_is_read_does_not(tmp_path: Path) -> None:
    times = {"subscription_idle_s": 600, "subscription_credentials_s": 86_400}
    async with a_world(tmp_path, **QUICK, **times) as world:
        idle, read = await subscribe(world), await subscribe(world)
        world.subscribers.queues[read["queue"]].readers = 1
        for _ in range(3):
            world.clock.forward(250)
            await rounds(world, 2)
        assert await ended(world, idle) == "nobody has read its queue for too long"
        assert (await ask(world, "GET", f"/{read['id']}"))["state"] == "open"


async def test_one_that_was_opened_while_a_round_looked_is_not_taken_for_one_that_never_was(world: World) -> None:
    await subscribe(world)
    world.subscribers.hold = asyncio.Event()
    made = asyncio.create_task(subscribe(world))
    await rounds(world, 2, when=lambda: len(world.subscribers.opening) == 1)
    world.auth.hold_remembered = asyncio.Event()
    await rounds(world, 1)
    world.subscribers.hold.set()
    sub = await made
    world.clock.forward(61)
    world.auth.hold_remembered.set()
    await rounds(world, 2)
    assert (await ask(world, "GET", f"/{sub['id']}"))["state"] == "open"


async def test_a_queue_that_an_operator_deleted_ends_its_subscription(world: World) -> None:
    sub = await subscribe(world)
    await world.subscribers.remove(sub["queue"])
    await a_run(world)
    assert await ended(world, sub) == "its queue was deleted at the broker"


async def test_what_was_deleted_while_the_broker_was_away_is_cleared_when_it_is_back(world: World) -> None:
    sub = await subscribe(world)
    world.subscribers.away = True
    assert await ask(world, "DELETE", f"/{sub['id']}") is None
    world.subscribers.away = False

    async def cleared() -> bool:
        return sub["queue"] not in world.subscribers.queues

    await world.until(cleared)
    gone = await world.http.post(f"/v1/subscriptions/{sub['id']}:renew", headers=world.as_("alice"))
    assert (gone.status_code, gone.json()["code"]) == (410, "gone")
    assert sub["position"] in gone.json()["detail"]


async def test_one_that_could_not_be_set_up_leaves_nothing_behind(world: World) -> None:
    world.subscribers.away = True
    assert (await refusal(world))[0] == 503
    world.subscribers.away = False
    (left,) = (await ask(world, "GET"))["items"]
    assert (left["state"], left["reason"]) == ("ended", "it could not be set up at the broker")
    assert world.subscribers.queues == {}


async def test_subscriptions_are_their_makers_alone(world: World) -> None:
    sub = await subscribe(world)
    assert [each["id"] for each in (await ask(world, "GET"))["items"]] == [sub["id"]]
    assert (await ask(world, "GET", token="carol"))["items"] == []
    for method, rest in (("GET", ""), ("DELETE", ""), ("POST", ":renew")):
        answer = await world.http.request(method, f"/v1/subscriptions/{sub['id']}{rest}", headers=world.as_("carol"))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "password" not in str(await ask(world, "GET", f"/{sub['id']}"))


# -- wrong input --------------------------------------------------------------------------------------------------


async def test_wrong_wishes_are_refused_with_the_nearest_right_one(world: World) -> None:
    status, code, detail = await refusal(world, states=["suceeded"])
    assert (status, code) == (422, "invalid_request") and "did you mean 'succeeded'?" in detail
    status, code, detail = await refusal(world, form="2026-11-24T12:00:00Z")
    assert (status, code) == (422, "invalid_request") and "did you mean 'from'?" in detail
    status, code, detail = await refusal(world, vo=OTHER_VO)
    assert (status, code) == (403, "forbidden") and VO in detail


@pytest.mark.parametrize(
    ("since", "words"),
    [
        ("2026-11-24T12:00:01Z", "is in the future; it is now 2026-11-24T12:00:00+00:00"),
        ("2026-11-24T12:00:00", "has no zone"),
        ("yesterday", "neither the id of an event nor a time"),
        ("EPOCH-99", "is in the future; the newest event is"),
    ],
)
async def test_a_wrong_beginning_is_refused(world: World, since: str, words: str) -> None:
    epoch = (await world.store.read(event_log.state)).epoch
    status, code, detail = await refusal(world, **{"from": since.replace("EPOCH", epoch)})
    assert (status, code) == (422, "invalid_request")
    assert "/from" in detail and words in detail


async def test_there_are_so_many_for_a_user_and_for_a_vo_and_no_more(tmp_path: Path) -> None:
    async with a_world(tmp_path, **QUICK, subscriptions_of_user=2, subscriptions_of_vo=3) as world:
        first = await subscribe(world)
        await subscribe(world)
        status, code, detail = await refusal(world)
        assert (status, code) == (409, "subscription_limit") and "you have 2" in detail
        await subscribe(world, "bob")
        status, code, detail = await refusal(world, "carol")
        assert (status, code) == (409, "subscription_limit") and VO in detail
        await ask(world, "DELETE", f"/{first['id']}")
        await subscribe(world, "carol")


async def test_a_platform_without_a_broker_says_what_to_do(tmp_path: Path) -> None:
    async with a_world(tmp_path) as made, restarted(
        tmp_path, made.auth, made.owners, made.bus, made.clock, shared_store=made.store
    ) as world:  # fmt: skip
        status, code, detail = await refusal(world)
    assert (status, code) == (409, "subscriptions_unavailable")
    assert "--bus amqp" in detail and "GET /v1/events" in detail
