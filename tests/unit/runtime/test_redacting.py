"""The last line of defence: whatever is logged or traced, what looks like proof is not in it."""

import io
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from shared.runtime import logs, redacting
from shared.runtime.redacting import MARK
from shared.runtime.telemetry import Tracer
from tests.builders import NOON, TestClock
from tests.unit.auth.world import FakeIssuer

pytestmark = pytest.mark.fast
TOKEN = FakeIssuer().token()
PROOFS = [
    (f"GET /v1?x={TOKEN}", TOKEN), (f"Authorization: Bearer {TOKEN}", TOKEN), ("bearer abcdef123456", "abcdef123456"),
    ("{'authorization': 'Basic dXNlcjpwYXNz'}", "dXNlcjpwYXNz"), ("amqp://serai:hunter2@host/", "hunter2"),
    ("postgresql+psycopg://u:p%40ss@db:5432/x", "p%40ss"), ("a=1&client_secret=hunter2&b=2", "hunter2"),
    ('{"password": "hunter2"}', "hunter2"), ("ConsulError(token='0f-1e')", "0f-1e"),
    ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----", "MIIEvQ"),
    ("{'X-Nomad-Token': b'11111111-2222'}", "11111111-2222"), ("refresh_token=AbC.dEf-1", "AbC.dEf-1"),
    (TOKEN.rsplit(".", 1)[0] + ".", TOKEN.split(".")[1]),
]  # fmt: skip
HARMLESS = [
    "the access token is not accepted: its audience does not name this platform", "no token", "token: ", "",
    "http://127.0.0.1:8080/v1/jobs?after=2026-11-26T12:00:00Z", "user:name@example.org wrote 3.4.5", "a.b.c",
    "sha256:0a1b2c", "tokens=3", "secrets_resealed", "the bearer of this",
    "this needs an access token: sign in", "eyJ is how they begin",
    "urn:mace:egi.eu:group:vo.example:role=member#aai.egi.eu",
]  # fmt: skip


@pytest.mark.parametrize(("said", "proof"), PROOFS)
def test_h9_what_has_the_shape_of_proof_is_taken_out(said: str, proof: str) -> None:
    told = redacting.text(said)
    assert proof in said and proof not in told and MARK in told
    assert redacting.text(told) == told, "once is enough"


@pytest.mark.parametrize("said", HARMLESS)
def test_what_is_harmless_stays_as_it_is(said: str) -> None:
    assert redacting.text(said) == said


@pytest.mark.parametrize(
    "name", ["token", "Authorization", "client_secret", "http.request.header.authorization", "Set-Cookie", "X-Grant"]
)
def test_h9_what_stands_under_a_name_of_proof_is_taken_out_whatever_it_looks_like(name: str) -> None:
    assert redacting.fields({"a": [{name: "plain words"}]}) == {"a": [{name: MARK}]}
    assert redacting.fields({name: ""}) == {name: ""}


@pytest.mark.parametrize("name", ["token_id", "secrets", "tokens", "grant", "key_id", "authorised", "event"])
def test_names_that_are_only_alike_are_left_alone(name: str) -> None:
    assert redacting.fields({name: "plain", "count": 3, "none": None}) == {name: "plain", "count": 3, "none": None}


@given(st.recursive(
    st.text() | st.binary() | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20,
))  # fmt: skip
def test_h9_however_deep_it_is_put_a_token_does_not_come_out(around: Any) -> None:
    for hidden in ({"x": [around, {"y": (TOKEN, around)}]}, {"a": {"b": {"c": {"d": {"e": {"f": [TOKEN, around]}}}}}}):
        assert TOKEN.rsplit(".", 1)[1] not in repr(redacting.fields(hidden))


# -- where it stands ----------------------------------------------------------------------------------------------


def test_h9_no_line_of_a_log_holds_a_token_ours_and_libraries_and_failures_alike(written: io.StringIO) -> None:
    log = logs.get("test")
    log.info("a", token=TOKEN, headers={"Authorization": f"Bearer {TOKEN}"}, words=f"GET /?t={TOKEN}")
    logging.getLogger("library").warning("cannot reach amqp://serai:%s@host", "hunter2")
    try:
        raise ValueError(f"bad header Bearer {TOKEN}")
    except ValueError as error:
        log.error("b", exc_info=error, error=repr(error))
        logging.getLogger("library").exception("failed")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert len(lines) == 4 and all("room" in line for line in lines)
    assert "ValueError" in lines[2]["exception"], "the failure itself is still told"
    for proof in (TOKEN.rsplit(".", 1)[1], "hunter2"):
        assert proof not in written.getvalue()


def test_h9_no_span_holds_a_token() -> None:
    ended: list[ReadableSpan] = []

    class Keeping(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span)

    tracer = Tracer("test", Keeping(), TestClock(NOON))
    with pytest.raises(ValueError, match="Bearer"), tracer.span("step", attributes={"password": "x", "n": 1}) as step:
        step.attributes["url"] = f"https://x.example/?access_token={TOKEN}"
        raise ValueError(f"Bearer {TOKEN}")
    [span] = ended
    assert dict(span.attributes or {}) == {
        "password": MARK, "n": 1, "url": f"https://x.example/?access_token={MARK}"
    }  # fmt: skip
    assert span.status.description == f"ValueError('Bearer {MARK}')"
