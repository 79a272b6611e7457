"""`serai subscribe`, `subscriptions` and `secrets` as users meet them. The gateway's own models read and answer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.gateway.api.subscriptions import OpenedDocument, SubscriptionDocument, SubscriptionsDocument
from services.gateway.subscriptions import SubscriptionInput
from tests.unit.client.conftest import Serai
from tests.unit.client.fake_gateway import VO, FakeGateway, problem

pytestmark = pytest.mark.fast

URL = "amqps://sub-1:first@broker.example:5671/public"
UNTIL = "2026-11-24T13:00:00Z"


@dataclass
class Subscribing(FakeGateway):
    """With subscriptions. `asked_for` is what each was wanted for."""

    asked_for: list[SubscriptionInput] = field(default_factory=list)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: list[dict[str, Any]] = field(default_factory=list)

    def more_routes(self) -> Iterator[Route]:
        one = "/v1/subscriptions/{id}"
        yield Route("/v1/secrets", self.listed_secrets)
        yield Route("/v1/subscriptions", self.subscriptions)
        yield Route("/v1/subscriptions", self.create, methods=["POST"])
        yield Route(one + ":renew", self.renew, methods=["POST"])
        yield Route(one, self.one)
        yield Route(one, self.delete, methods=["DELETE"])

    async def create(self, request: Request) -> Response:
        asked = SubscriptionInput.model_validate_json(await request.body())
        self.asked_for.append(asked)
        id = f"sub-{len(self.asked_for)}"
        self.kept[id] = {
            "id": id, "state": "open", "reason": None, "vo": asked.vo, "states": asked.states, "labels": asked.labels,
            "own": asked.own, "created_at": "2026-11-24T12:00:00Z", "credentials_expire_at": UNTIL, "queue": f"q.{id}",
            "position": "e1-7", "waiting": 12, "ended_at": None,
        }  # fmt: skip
        return self._opened(id, "first", 201)

    def _opened(self, id: str, password: str, status: int = 200) -> Response:
        login = {
            "url": f"amqps://{id}:{password}@broker.example:5671/public", "queue": f"q.{id}", "username": id,
            "password": password,
        }  # fmt: skip
        document = OpenedDocument.model_validate(self.kept[id] | {"connection": login})
        return JSONResponse(document.model_dump(mode="json"), status)

    async def subscriptions(self, request: Request) -> Response:
        items = [SubscriptionDocument.model_validate(each) for each in reversed(self.kept.values())]
        return JSONResponse(SubscriptionsDocument(items=items).model_dump(mode="json"))

    async def one(self, request: Request) -> Response:
        found = self.kept.get(request.path_params["id"])
        return JSONResponse(found) if found else problem(404, "not_found", "there is no such subscription")

    async def renew(self, request: Request) -> Response:
        return self._opened(request.path_params["id"], "second")

    async def delete(self, request: Request) -> Response:
        self.kept.pop(request.path_params["id"])
        return Response(status_code=204)

    async def listed_secrets(self, request: Request) -> Response:
        return JSONResponse({"secrets": self.secrets})


@pytest.fixture
def gateway() -> Subscribing:
    return Subscribing()


def test_subscribe_asks_for_what_was_said_and_shows_the_login_once(gateway: Subscribing, serai: Serai) -> None:
    wanted = ("--state", "succeeded", "--state", "failed", "--label", "run=7", "--own", "--from", "e1-5")
    code, out, _ = serai("subscribe", *wanted)
    (asked,) = gateway.asked_for
    assert (asked.vo, asked.states, asked.labels, asked.own, asked.since) == (
        VO, ["succeeded", "failed"], {"run": "7"}, True, "e1-5",
    )  # fmt: skip
    assert code == 0 and URL in out and "q.sub-1" in out
    for words in (("subscriptions",), ("subscriptions", "show", "sub-1"), ("subscriptions", "-o", "json")):
        code, out, err = serai(*words)
        assert code == 0 and "sub-1" in out and "first" not in out + err


def test_subscribe_as_json_is_for_scripts(gateway: Subscribing, serai: Serai) -> None:
    code, out, _ = serai("subscribe", "-o", "json")
    assert code == 0 and json.loads(out)["connection"]["url"] == URL
    assert gateway.asked_for[0].since is None and not gateway.asked_for[0].own


def test_a_label_without_a_value_is_told_before_anything_is_asked(gateway: Subscribing, serai: Serai) -> None:
    code, out, err = serai("subscribe", "--label", "run")
    assert (code, out) == (65, "") and "--label run: write KEY=VALUE" in err
    assert not gateway.asked_for


def test_what_the_gateway_says_of_a_wrong_state_is_told(gateway: Subscribing, serai: Serai) -> None:
    fault = {"pointer": "/states/0", "detail": "there is no state 'succeded'", "hint": "did you mean 'succeeded'?"}
    gateway.first = [problem(422, "invalid_request", errors=[fault])]
    code, _, err = serai("subscribe", "--vo", VO, "--state", "succeded")
    assert code == 65 and "there is no state 'succeded'" in err and "did you mean 'succeeded'?" in err


def test_subscriptions_are_listed_with_what_waits_in_them(gateway: Subscribing, serai: Serai) -> None:
    serai("subscribe"), serai("subscribe")
    gateway.kept["sub-1"] |= {"state": "ended", "reason": "idle", "waiting": None}
    code, out, _ = serai("subscriptions", "list")
    newest, ended = out.splitlines()[-2:]
    assert code == 0 and newest.split()[:4] == ["sub-2", VO, "open", "12"]
    assert ended.split()[:4] == ["sub-1", VO, "ended", "?"] and ended.split()[-1] == "idle"


def test_a_login_is_renewed_and_a_subscription_deleted(gateway: Subscribing, serai: Serai) -> None:
    serai("subscribe")
    code, out, _ = serai("subscriptions", "renew", "sub-1", "-o", "json")
    assert code == 0 and json.loads(out)["connection"]["password"] == "second"
    code, _, err = serai("subscriptions", "delete", "sub-1")
    assert code == 0 and "sub-1 is deleted" in err and not gateway.kept
    code, _, err = serai("subscriptions", "show", "sub-1")
    assert code != 0 and "there is no such subscription" in err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("subscriptions", "you have no subscriptions; have events sent to you: `serai subscribe --state succeeded`"),
        ("secrets", "you have no secrets; set one: `serai secrets set NAME --file FILE`"),
    ],
)
def test_where_there_are_none_it_says_so_and_what_to_type(serai: Serai, command: str, words: str) -> None:
    code, out, err = serai(command)
    assert (code, out) == (0, "") and words in err
    code, out, _ = serai(command, "-o", "json")
    assert code == 0 and json.loads(out) == []
