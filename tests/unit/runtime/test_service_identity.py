"""How services know each other: each speaks for itself, to one receiver, for a minute, about what it may ask."""

from datetime import timedelta
from typing import Any

import httpx2 as httpx
import orjson
import pytest
from fastapi.routing import APIRoute
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey

from services.embedded.platform import platform
from services.embedded.settings import EmbeddedSettings
from shared.errors import Misconfigured, Refused
from shared.processes.settings import ProcessSettings
from shared.runtime.in_process import InProcessTransport
from shared.runtime.service_identity import (
    HEADER,
    SERVICES,
    TYPE,
    Door,
    Identity,
    SharedSecret,
    made_key,
    private_key,
    public_keys,
)
from tests.builders import NOON, TestClock

pytestmark = pytest.mark.fast
PAIRS = {service: made_key() for service in SERVICES}
KEYS = public_keys(",".join(f"{service}={public}" for service, (_, public) in PAIRS.items()))


def identity(service: str, clock: TestClock) -> Identity:
    return Identity(service, private_key(PAIRS[service][0]), clock)


def signed(service: str, key: Any = None, algorithm: str = "Ed25519", kind: str = TYPE, **claims: Any) -> str:
    """A credential as anybody might make it; by default the scheduler's, good for auth."""
    own = private_key(PAIRS[service][0])
    at = NOON.timestamp()
    told = {"iss": service, "aud": "auth", "iat": at, "exp": at + 60} | claims
    header = {"alg": algorithm, "typ": kind, "kid": own.thumbprint()}
    told = {name: value for name, value in told.items() if value is not None}
    return jws.serialize_compact(header, orjson.dumps(told), key or own, algorithms=[algorithm])


def lowered(headers: dict[str, str]) -> dict[str, str]:
    """As HTTP servers hand them on."""
    return {name.lower(): value for name, value in headers.items()}


def who(door: Door, credential: str, *may: str) -> str:
    return door.who({HEADER.lower(): credential}, may or SERVICES)


def refused(door: Door, credential: str, *may: str) -> str:
    with pytest.raises(Refused) as refusal:
        who(door, credential, *may)
    return refusal.value.code


def test_a_service_is_known_by_its_own_key_and_to_one_receiver_only() -> None:
    clock = TestClock()
    shown = identity("scheduler", clock).shown_to("auth")
    assert who(Door("auth", KEYS, clock=clock), shown, "scheduler") == "scheduler"
    assert refused(Door("monitor", KEYS, clock=clock), shown) == "unauthenticated", "replayed by who was shown it"


def test_a_receiver_says_who_may_ask() -> None:
    clock = TestClock()
    door, shown = Door("auth", KEYS, clock=clock), identity("monitor", clock).shown_to("auth")
    assert refused(door, shown, "gateway", "scheduler") == "forbidden"
    assert who(door, shown, "gateway", "monitor") == "monitor"


def test_the_key_of_one_service_speaks_for_no_other() -> None:
    door, stolen = Door("auth", KEYS, clock=TestClock()), private_key(PAIRS["monitor"][0])
    assert refused(door, signed("scheduler", key=stolen)) == "unauthenticated", "under the other's name of a key"
    assert refused(door, signed("monitor", iss="scheduler")) == "unauthenticated", "under its own"
    assert who(door, signed("monitor")) == "monitor"


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "serai-grant+jwt"}, {"kind": "JWT"}, {"aud": "scheduler"}, {"aud": None}, {"aud": ["auth"]},
        {"iss": None}, {"exp": None}, {"exp": "soon"}, {"iat": None}, {"exp": NOON.timestamp()},
        {"exp": NOON.timestamp() + 86_400}, {"iat": NOON.timestamp() + 3_600},
        {"key": OKPKey.generate_key("Ed25519")},
        {"key": OctKey.import_key(PAIRS["scheduler"][1]), "algorithm": "HS256"},
    ],
)  # fmt: skip
def test_credentials_that_do_not_hold(changed: dict[str, Any]) -> None:
    assert refused(Door("auth", KEYS, clock=TestClock()), signed("scheduler", **changed)) == "unauthenticated"


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "." * 3, "é", "x" * 5_000])
def test_what_is_no_credential(text: str) -> None:
    assert refused(Door("auth", KEYS, clock=TestClock()), text) == "unauthenticated"


def test_a_credential_ends_and_is_made_anew_in_time() -> None:
    clock = TestClock()
    scheduler, door = identity("scheduler", clock), Door("auth", KEYS, clock=clock)
    first = scheduler.shown_to("auth")
    assert scheduler.shown_to("auth") == first
    clock.forward(31)
    second = scheduler.shown_to("auth")
    assert second != first
    assert who(door, first) == who(door, second) == "scheduler"
    clock.forward(30)
    assert refused(door, first) == "unauthenticated", "also where it was known before"
    assert who(door, second) == "scheduler"


def test_a_clock_that_was_set_back_does_not_leave_a_credential_of_the_future() -> None:
    clock = TestClock()
    scheduler = identity("scheduler", clock)
    scheduler.shown_to("auth")
    clock.now -= timedelta(days=1)
    assert who(Door("auth", KEYS, clock=clock), scheduler.shown_to("auth")) == "scheduler"


def test_a_key_is_replaced_while_both_are_known() -> None:
    clock, (new_private, new_public) = TestClock(), made_key()
    both = {**KEYS, "scheduler": [*KEYS["scheduler"], *public_keys(f"scheduler={new_public}")["scheduler"]]}
    door = Door("auth", both, clock=clock)
    assert who(door, identity("scheduler", clock).shown_to("auth")) == "scheduler"
    assert who(door, Identity("scheduler", private_key(new_private), clock).shown_to("auth")) == "scheduler"
    after = Door("auth", {**KEYS, "scheduler": both["scheduler"][1:]}, clock=clock)
    assert refused(after, identity("scheduler", clock).shown_to("auth")) == "unauthenticated"


# -- settings -----------------------------------------------------------------------------------------------------

URL = {"database_url": "sqlite:///x"}
ALL = ",".join(f"{service}={public}" for service, (_, public) in PAIRS.items())


def settings(**told: str) -> ProcessSettings:
    return ProcessSettings(**URL, **told)  # type: ignore[arg-type]  # as the environment says


def test_no_secret_that_all_share_opens_a_process() -> None:
    """Whoever had one spoke for any service."""
    door = settings(service_key=PAIRS["auth"][0], service_keys=ALL).door("auth")
    with pytest.raises(Refused, match="shows nothing"):
        door.who(lowered(SharedSecret("hush").headers("auth")), SERVICES)
    assert "service_token" not in ProcessSettings.model_fields
    with pytest.raises(AssertionError):
        Door("auth", KEYS, shared="hush")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "serai-platform service-keys"),
        ({"service_key": PAIRS["auth"][0]}, "both are needed"),
        ({"service_keys": ALL}, "both are needed"),
    ],
)
def test_settings_that_let_nobody_in_are_refused_at_the_start(told: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(**told)


@pytest.mark.parametrize(
    ("key", "keys", "words"),
    [
        ("short", ALL, "is not a key"),
        (PAIRS["monitor"][0], ALL, "not among those of auth"),
        (PAIRS["auth"][0], f"{ALL},network=abc", "there is no service 'network'"),
        (PAIRS["auth"][0], "auth=abc", "the key of auth is not one"),
    ],
    ids=["short", "another's", "unknown-service", "no-public-key"],
)
def test_keys_that_are_none_are_told_by_setting_and_not_shown(key: str, keys: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words) as refusal:
        settings(service_key=key, service_keys=keys).identity("auth")
    assert key not in str(refusal.value)


# -- who may ask what ---------------------------------------------------------------------------------------------

MAY = """
POST /internal/context                      auth       gateway
POST /internal/grants                       auth       gateway
POST /internal/decisions                    auth       scheduler
POST /internal/remembered                   auth       gateway
GET  /internal/trust                        auth       gateway monitor scheduler
PUT  /internal/secrets                      auth       gateway
POST /internal/secrets:list                 auth       gateway
POST /internal/secrets:delete               auth       gateway
POST /internal/secrets:release              auth       scheduler
POST /internal/explain                      scheduler  gateway
GET  /internal/jobs/{job_id}/explain        scheduler  gateway
GET  /internal/jobs/{job_id}/events         scheduler  gateway
GET  /internal/sites                        scheduler  gateway
POST /internal/attempts:strays              scheduler  monitor
POST /internal/attempts:speak               scheduler  gateway
GET  /internal/jobs/{job_id}/events         monitor    gateway
GET  /internal/jobs/{job_id}/logs           monitor    gateway
GET  /internal/jobs/{job_id}/outputs        monitor    gateway
GET  /internal/jobs/{job_id}/outputs/{name} monitor    gateway
"""
"""Every route between services: method, path, who answers, who may ask."""


async def test_every_route_between_services_lets_in_exactly_who_may_ask_it(tmp_path: Any) -> None:
    table = {(m, p, r): set(may) for m, p, r, *may in (line.split() for line in MAY.strip().splitlines())}
    settings = EmbeddedSettings(data=tmp_path / "data", port=9_100, mock=True)
    async with platform(settings) as up:
        apps = {service.name: service.app for service in up.services if service.name != "gateway"}
        found = {
            (method, route.path, name) for name, app in apps.items() for route in app.routes
            if isinstance(route, APIRoute) and route.path.startswith("/internal") for method in route.methods
        }  # fmt: skip
        assert found == set(table)
        kept = (tmp_path / "data" / "platform.json").read_text()
        pairs = orjson.loads(kept)["service_keys"]
        for (method, path, receiver), may in table.items():
            where = path.format(job_id="019aaaaa-0000-7000-8000-000000000001", name="x")
            async with httpx.AsyncClient(transport=InProcessTransport(apps[receiver]), base_url="http://x") as client:
                for asker in SERVICES:
                    shown = Identity(asker, private_key(pairs[asker][0])).headers(receiver)
                    answer = await client.request(method, where, headers=shown)
                    let_in = answer.json().get("code") not in ("forbidden", "unauthenticated")
                    assert let_in is (asker in may), (method, path, asker, answer.text)
                assert (await client.request(method, where)).status_code == 401
