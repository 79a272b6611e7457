"""Secrets of an attempt: at the cluster before it starts, read by its own tasks alone, deleted when asked."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from shared.adapters.nomad import ClusterSettings, specification, variables
from shared.engine import AllocationSeen, AttemptOrder, Seen, Submission, Submitted
from tests.ports.engine.site import SiteUnderTest, a_script, of

CANARY = "canary-7d1f0c52"
KEYS = b"\x00\xff\x80 {{ env }} ${HOME} \n\r\t" + bytes(range(256))
NAMED = [{"name": "key", "file": "key"}, {"name": "s3.config", "file": "config.ini"}]
READ = 'for f in key config.ini; do od -An -v -tx1 "$NOMAD_SECRETS_DIR/$f" | tr -d " \\n"; echo; done > read'


def with_secrets(text: str = READ, **values: bytes) -> AttemptOrder:
    kept = {"key": KEYS, "s3.config": CANARY.encode()} | values
    return replace(a_script(text, secrets=NAMED), secrets=kept)


async def ask(site: SiteUnderTest, method: str, url: str, body: Any = None, **params: str) -> httpx2.Response:
    return await asyncio.to_thread(site.operator.request, method, url, body, params)


def path_of(order: AttemptOrder) -> str:
    return f"/v1/var/nomad/jobs/{order.attempt.nomad_id}"


async def test_a_task_finds_its_secrets_byte_for_byte_in_its_secrets_folder(site: SiteUnderTest) -> None:
    end = await site.ended(await site.submitted(with_secrets()))
    assert (await site.file(end, "read")).decode().split() == [KEYS.hex(), CANARY.encode().hex()]


async def test_one_secret_may_lie_in_two_files(site: SiteUnderTest) -> None:
    order = a_script("cat ../secrets/a ../secrets/b > read", secrets=[{"name": "k", "file": f} for f in "ab"])
    end = await site.ended(await site.submitted(replace(order, secrets={"k": b"twice;"})))
    assert await site.file(end, "read") == b"twice;twice;"


async def test_a_value_is_in_no_job_allocation_or_event_and_cannot_be_read_as_a_file(site: SiteUnderTest) -> None:
    order = await site.submitted(with_secrets("sleep 1"))
    end = await site.ended(order)
    name = order.attempt.nomad_id
    told = [(await ask(site, "GET", path)).text for path in (
        f"/v1/job/{name}", f"/v1/job/{name}/versions", f"/v1/job/{name}/allocations", f"/v1/allocation/{end.id}",
        f"/v1/job/{name}/evaluations", "/v1/vars",
    )]  # fmt: skip
    told.append(repr(await site.seen_until(lambda seen: any(getattr(one, "id", "") == end.id for one in seen))))
    told.append(repr(order))
    encoded = json.dumps(with_secrets().spec.model_dump(mode="json"))
    for value in (CANARY, "Y2FuYXJ5LTdkMWYwYzUy"):
        assert not any(value in each for each in (*told, encoded))
    for path in ("main/secrets/key", "main/local/../secrets/key"):
        assert CANARY not in (await ask(site, "GET", f"/v1/client/fs/cat/{end.id}", path=path)).text


async def test_a_task_waits_for_secrets_that_are_not_at_its_own_path(site: SiteUnderTest) -> None:
    """Another job's are no help; once its own are there, it starts."""
    await site.submitted(with_secrets("sleep 3"))
    order = with_secrets()
    job = specification.job_of(order, ClusterSettings(name="x", address="http://127.0.0.1:1"))
    assert (await ask(site, "PUT", "/v1/jobs", {"Job": job})).status_code == 200
    waiting = await site.reached(order, "pending")
    assert waiting.tasks == () or waiting.tasks[0].started_at is None
    items = variables.items_of(order)
    await ask(site, "PUT", path_of(order), {"Items": items})
    end = await site.ended(order)
    assert (await site.file(end, "read")).decode().split()[0] == KEYS.hex()


async def test_forgotten_secrets_are_gone_and_the_running_task_keeps_its_file(site: SiteUnderTest) -> None:
    order = await site.submitted(with_secrets("sleep 3; " + READ))
    await site.reached(order, "running")
    assert (order.attempt.nomad_id, "default") in await site.engine.kept_secrets()
    await site.engine.forget(order.attempt, "default")
    assert (order.attempt.nomad_id, "default") not in await site.engine.kept_secrets()
    assert (await ask(site, "GET", path_of(order))).status_code == 404
    end = await site.ended(order)
    assert (await site.file(end, "read")).decode().split()[0] == KEYS.hex()


async def test_forgetting_what_is_not_there_is_harmless(site: SiteUnderTest) -> None:
    order = with_secrets()
    await site.engine.forget(order.attempt, "default")
    await site.engine.forget(order.attempt, "default")


async def test_a_register_that_is_sent_again_brings_the_newest_values(site: SiteUnderTest) -> None:
    order = await site.submitted(with_secrets("sleep 2"))
    newer = replace(order, secrets={"key": b"newer", "s3.config": b"newer too"})
    assert await site.engine.submit(newer) == Submission(Submitted.ALREADY_THERE)
    found = (await ask(site, "GET", path_of(order))).json()
    assert sorted(found["Items"]) == ["key", "s3.config"]
    assert found["ModifyIndex"] > found["CreateIndex"]
    assert await site.engine.submit(newer) == Submission(Submitted.ALREADY_THERE)
    assert (await ask(site, "GET", path_of(order))).json()["ModifyIndex"] == found["ModifyIndex"]


async def test_a_job_whose_secrets_are_too_large_is_invalid_and_leaves_nothing(site: SiteUnderTest) -> None:
    order = with_secrets(key=b"x" * 32_768, **{"s3.config": b"y" * 17_000})
    submission = await site.engine.submit(order)
    assert (submission.outcome, "65536" in submission.text) == (Submitted.INVALID, True)
    assert (await ask(site, "GET", path_of(order))).status_code == 404
    assert (await ask(site, "GET", f"/v1/job/{order.attempt.nomad_id}")).status_code == 404


async def test_as_much_as_a_variable_holds_arrives(site: SiteUnderTest) -> None:
    first, second = b"x" * 32_766, b"y" * (49_152 - 32_766 - 9)
    order = with_secrets("wc -c < ../secrets/key > read; wc -c < ../secrets/config.ini >> read", key=first,
                         **{"s3.config": second})  # fmt: skip
    end = await site.ended(await site.submitted(order))
    assert (await site.file(end, "read")).split() == [b"%d" % len(first), b"%d" % len(second)]


# -- the Variables API itself, as the embedded agent and Nomad both have it ------------------------------------------


async def test_check_and_set_says_what_is_there(site: SiteUnderTest) -> None:
    path = path_of(with_secrets())
    made = (await ask(site, "PUT", path, {"Items": {"a": "1"}}, cas="0")).json()
    assert made["CreateIndex"] == made["ModifyIndex"] > 0
    assert (made["Items"], made["Namespace"], path.endswith(made["Path"])) == ({"a": "1"}, "default", True)
    clash = await ask(site, "PUT", path, {"Items": {"a": "2"}}, cas="0")
    assert (clash.status_code, clash.json()) == (409, made)
    changed = await ask(site, "PUT", path, {"Items": {"a": "2"}}, cas=str(made["ModifyIndex"]))
    assert (changed.status_code, changed.json()["Items"]) == (200, {"a": "2"})
    assert (await ask(site, "DELETE", path, cas=str(made["ModifyIndex"]))).status_code == 409
    assert (await ask(site, "DELETE", path)).status_code == 204
    assert (await ask(site, "GET", path)).text == "variable not found"
    assert (await ask(site, "DELETE", path)).status_code == 204


@pytest.mark.parametrize(("path", "body", "cas", "text"), [
    ("nomad/jobs/x", {}, None, "variable missing required Items object"),
    ("nomad/jobs/x", {"Items": {}}, None, "variable missing required Items object"),
    ("nomad/jobs/x", {"Items": {"a": "b"}}, "x", 'can not parse cas: strconv.ParseUint: parsing "x": invalid syntax'),
    ("nomad/elsewhere", {"Items": {"a": "b"}}, None, 'RPC Error:: 400,only paths at "nomad/jobs" or '
     '"nomad/job-templates" and below are valid paths under the top-level "nomad" directory'),
    ("nomad/jobs/x", {"Items": {"a": "x" * 65_536}}, None,
     "RPC Error:: 400,variables are limited to 64KiB in total size"),
])  # fmt: skip
async def test_what_cannot_be_kept_is_refused(
    site: SiteUnderTest, path: str, body: dict[str, Any], cas: str | None, text: str
) -> None:
    refused = await ask(site, "PUT", f"/v1/var/{path}", body, **({"cas": cas} if cas else {}))
    assert (refused.status_code, refused.text) == (400, text)


async def test_a_list_names_variables_without_their_items(site: SiteUnderTest) -> None:
    order = with_secrets()
    await ask(site, "PUT", path_of(order), {"Items": {"a": CANARY}})
    listed = await ask(site, "GET", "/v1/vars", prefix="nomad/jobs/", namespace="*")
    row = next(row for row in listed.json() if row["Path"].endswith(order.attempt.nomad_id))
    assert sorted(row) == ["CreateIndex", "CreateTime", "ModifyIndex", "ModifyTime", "Namespace", "Path"]
    assert CANARY not in listed.text


# -- who may read ------------------------------------------------------------------------------------------------------


async def test_a_task_that_asks_for_another_jobs_secrets_gets_none_and_does_not_start(
    closed_site: SiteUnderTest,
) -> None:
    """Where Nomad has ACLs, and at the embedded agent. Without them Nomad lets every task read (docs/secrets.md)."""
    site = closed_site
    theirs = await site.submitted(with_secrets("sleep 30"))
    thief = with_secrets()
    job = specification.job_of(thief, ClusterSettings(name="x", address="http://127.0.0.1:1"))
    stolen = json.loads(
        json.dumps(job).replace(f"{variables.PREFIX}{thief.attempt}", f"{variables.PREFIX}{theirs.attempt}")
    )
    assert (await ask(site, "PUT", "/v1/jobs", {"Job": stolen})).status_code == 200

    def refused(seen: list[Seen]) -> bool:
        events = [event for one in of(thief, seen, AllocationSeen) for task in one.tasks for event in task.events]
        return any(event.type == "Template" for event in events)

    seen = await site.seen_until(refused)
    newest = of(thief, seen, AllocationSeen)[-1]
    assert (newest.client_status, newest.tasks[0].started_at) == ("pending", None)
    for order in (thief, theirs):
        await site.engine.close(order.attempt, "default")
