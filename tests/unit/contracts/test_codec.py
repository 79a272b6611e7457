"""What the codec refuses, ignores and keeps."""

import orjson
import pytest

from shared.contracts import codec, routes
from shared.contracts.commands import SubmitJob
from shared.contracts.envelope import Message
from shared.contracts.events import JobRunning, SiteUnreachable
from shared.ids import AttemptId, attempt_of, fact_id, traceparent, vo_token
from tests.builders import ALICE, NOON, VO, a_job, job_id

pytestmark = pytest.mark.fast

RUNNING = JobRunning(job_id=job_id(7), vo=VO, owner=ALICE, name="count", sequence=4, attempt=1, site="prague")


def submit(body: bytes) -> Message:
    return codec.command_message(SubmitJob, body, id="1", source="/gateway", time=NOON, subject="s", grant="g")


def test_a_command_with_an_unknown_field_is_refused() -> None:
    body = orjson.dumps({**orjson.loads(codec.command_body(a_job())), "raw_nomad": {}})
    with pytest.raises(codec.Undecodable, match="raw_nomad"):
        codec.decode(submit(body))


def test_an_event_with_an_unknown_field_is_read_without_it() -> None:
    (message,) = codec.event_messages(RUNNING, source="/scheduler", time=NOON)
    outer = orjson.loads(message.body)
    outer["data"]["from_the_future"] = 1
    assert codec.decode_event(orjson.dumps(outer)).content == RUNNING


@pytest.mark.parametrize(
    "type", ["eu.serai.job.submit.v2", "eu.serai.job.explode.v1", "job.submit.v1", "", "eu.serai..v1"]
)
def test_an_unknown_type_or_version_is_refused_by_name(type: str) -> None:
    message = Message("1", type, "serai.commands", "job.submit", b"{}", "application/json", {})
    with pytest.raises(codec.Undecodable):
        codec.decode(message)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"job_id": 5}', b"\xff"])
def test_a_body_that_is_no_command_is_refused(body: bytes) -> None:
    with pytest.raises(codec.Undecodable):
        codec.decode(submit(body))


def test_the_same_fact_always_has_the_same_id() -> None:
    first, again = (codec.event_messages(RUNNING, source="/scheduler", time=NOON)[0].id for _ in range(2))
    assert first == again == str(fact_id(job_id(7), 0, 4))


def test_a_vo_is_one_word_of_a_routing_key() -> None:
    (message,) = codec.event_messages(RUNNING, source="/scheduler", time=NOON)
    assert message.routing_key == "vo.vo~climate~example.job.running"
    assert vo_token("vo.a") != vo_token("vo-a")


def test_a_site_event_for_a_vo_is_told_to_that_vo_alone() -> None:
    event = SiteUnreachable(site="prague", occurrence=1, since=NOON, vo=VO)
    assert [route[1] for route in routes.event_routes(event)] == ["vo.vo~climate~example.site.unreachable"]


def test_everything_about_a_job_shares_one_trace() -> None:
    (message,) = codec.event_messages(RUNNING, source="/scheduler", time=NOON)
    assert message.headers["traceparent"] == traceparent(job_id(7))
    assert job_id(7).hex in message.headers["traceparent"]


@pytest.mark.parametrize("number", [1, 12, 999, 1000])
def test_an_attempt_is_named_by_its_nomad_job_and_back(number: int) -> None:
    attempt = AttemptId(job_id(3), number)
    assert attempt_of(attempt.nomad_id) == attempt


@pytest.mark.parametrize(
    "foreign", ["web", "", "019aaaaa-0000-7000-8000-000000000003", f"{job_id(3)}-1x", f"{job_id(3)}-01"]
)
def test_a_foreign_nomad_job_is_no_attempt_of_ours(foreign: str) -> None:
    assert attempt_of(foreign) is None


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("#", "a.b.c", True), ("a.#", "a", True), ("a.#", "a.b.c", True), ("a.*", "a.b", True), ("a.*", "a", False),
        ("a.*", "a.b.c", False), ("*.b", "a.b", True), ("#.c", "a.b.c", True), ("a.b", "a.c", False),
    ],
)  # fmt: skip
def test_keys_match_as_in_amqp(pattern: str, key: str, matches: bool) -> None:
    assert routes.key_matches(pattern, key) is matches
