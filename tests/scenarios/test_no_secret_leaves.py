"""H9: no token, grant or password leaves the places it is meant for, on the whole path, failures included.

Everything that proves who somebody is gets collected where it is made. Then all that the platform keeps, tells, logs
and exports is searched for it: files, databases, spans, messages, answers, what runs at the sites.
"""

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.runtime import service_identity
from shared.runtime.redacting import MARK
from tests.scenarios.world import World, a_job, a_site, a_world, shell

MEANT: dict[str, tuple[str, ...]] = {
    "service token": ("platform.json",),
    "key of a service": ("platform.json",),
    "grant": ("gateway.sqlite", "scheduler.sqlite", "bus.sqlite"),
}
"""Files that may hold what is proof: the services' own secret, and grants with the commands that they belong to."""


@dataclass
class Collector:
    """Stands between the services, and keeps every proof that is shown or handed out."""

    found: dict[str, set[str]] = field(default_factory=dict)

    def add(self, kind: str, value: str) -> None:
        """A proof is searched for by its part that nobody else has: of a token, the signature."""
        self.found.setdefault(kind, set()).add(value.rsplit(".", 1)[-1] if value.count(".") == 2 else value)

    def between(self, name: str, app: Any) -> Any:
        """What `platform(..., apps=...)` is handed."""
        return self._listening(app)

    def _listening(self, app: Any) -> Any:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            said = bytearray()
            for name, value in scope.get("headers", ()):
                if name == service_identity.HEADER.lower().encode():
                    self.add("proof of a service", value.decode())

            async def heard(message: Any) -> None:
                said.extend(message.get("body", b""))
                await send(message)

            await app(scope, receive, heard)
            if scope["type"] == "http" and scope["path"] in ("/internal/context", "/internal/grants"):
                self._keep(json.loads(bytes(said)))

        return answer

    def _keep(self, told: dict[str, Any]) -> None:
        if grant := told.get("read_grant"):
            self.add("read grant", grant)
        for each in told.get("answers", ()):
            if each.get("grant"):
                self.add("grant", each["grant"])


async def test_h9_on_the_whole_path_nothing_that_proves_who_somebody_is_is_left_lying_about(
    tmp_path: Path, written: io.StringIO
) -> None:
    auth, told = Collector(), list[str]()
    async with a_world(tmp_path, a_site("prague"), mock=False, apps=auth.between) as world:
        await collect_known(auth, world, tmp_path)
        ended = await a_day_of_work(world)
        told += await wrong_ways_to_present_oneself(world, auth)
        told += await all_that_is_told(world, ended)
        stopping = [service.name for service in world.up.services]
    assert stopping
    assert len(auth.found["grant"]) >= 4 and len(auth.found["token"]) == 3, "the check of the check"
    assert len(auth.found["proof of a service"]) >= 3 and len(auth.found["key of a service"]) == 4
    places = {**kept_files(tmp_path), "the log": written.getvalue(), "answers": "\n".join(told)}
    assert len(places) > 20 and any("alloc/logs" in place for place in places)
    assert "request_refused" in places["the log"] and "task_error" in places["answers"]
    assert leaks(auth.found, places) == []
    assert [place for place, said in places.items() if MARK in said] == [], "the last line of defence had nothing to do"


async def collect_known(auth: Collector, world: World, folder: Path) -> None:
    for person in (world.alice, world.bob, world.olga):
        auth.add("token", person.http.headers["authorization"].removeprefix("Bearer "))
    kept = json.loads((folder / "data" / "platform.json").read_text())
    auth.add("service token", kept["service_token"])
    for private, _ in kept["service_keys"].values():
        auth.add("key of a service", private)
    auth.add("password", "demo-workflow-secret")


async def a_day_of_work(world: World) -> list[str]:
    """Jobs that succeed, fail, are cancelled, are refused and are never placed; a site that errs meanwhile."""
    alice, bob = world.alice, world.bob
    shows_all = shell("env; cat /proc/self/environ; ls -laR . ..; cat ../secrets/* 2>/dev/null; echo over")
    good = await alice.submit(shows_all)
    await alice.sees(good, "succeeded")
    bad = await bob.submit(shell("env >&2; exit 3", vo="vo.bio.example"))
    await bob.sees(bad, "failed")
    endless = (await alice.runs(shell("sleep 3600"))).id
    await alice.http.delete(f"/v1/jobs/{endless}")
    await alice.sees(endless, "cancelled")
    refused = await bob.http.post("/v1/jobs", json=a_job())
    assert refused.status_code == 403
    await world.fault("prague", "error-500", count=3)
    after = await alice.submit(shell("true"))
    await alice.sees(after, "succeeded")
    waiting = await alice.submit(a_job(resources={"cpu": 500, "memory": 32, "disk": 10}))
    await alice.sees(waiting, "queued", "failed", "rejected")
    return [good, bad, endless, after, waiting]


async def wrong_ways_to_present_oneself(world: World, auth: Collector) -> list[str]:
    """Tokens where they do not belong, cut tokens, the service token as a user's: with what is answered."""
    token = world.alice.http.headers["authorization"].removeprefix("Bearer ")
    [service] = auth.found["service token"]
    told = []
    for headers, path in (
        ({"Authorization": f"Bearer {token[:-3]}AAA"}, "/v1/jobs"), ({"Authorization": f"Basic {token}"}, "/v1/jobs"),
        ({"Authorization": f"Bearer {token} {token}"}, "/v1/jobs"), ({}, f"/v1/jobs?access_token={token}"),
        ({"Authorization": ""}, f"/v1/jobs/{token}"), ({}, f"/v1/jobs/{token}"), ({}, f"/v1/jobs?label={token}"),
        ({"Authorization": f"Bearer {service}"}, "/v1/jobs"), ({"Serai-Read-Grant": token}, "/v1/whoami"),
        ({"Idempotency-Key": "k", "Content-Type": token}, "/v1/jobs"), ({"Host": f"{token[:60]}.example"}, "/v1"),
        ({"X-Forwarded-For": token}, "/v1"), ({"traceparent": token}, "/v1/jobs"), ({"Cookie": token}, "/v1/nothing"),
        ({}, f"/v1//jobs/{token}"), ({}, f"/v1/jobs/..%2f{token}"), ({"Host": "evil.example"}, f"/v1/{token}"),
    ):  # fmt: skip
        answer = await world.alice.http.get(path, headers=headers)
        told.append(without_what_was_sent(answer.text, path))
    auth.add("token", f"x.y.{token.rsplit('.', 1)[1][:-3]}AAA")
    auth.found["token"].discard(f"{token.rsplit('.', 1)[1][:-3]}AAA")
    return told


def without_what_was_sent(text: str, path: str) -> str:
    """An answer may name the parameter that it does not know, never its value; a path is not shown again."""
    return text.replace(path, "")


async def all_that_is_told(world: World, jobs: list[str]) -> list[str]:
    """Every document of every job, as seen by who may see it, every span, and what the services say of themselves."""
    told = []
    suffixes = ("", "/spec", "/timeline", "/explain", "/trace", "/logs", "/logs?stream=stderr", "/outputs", "/events")
    for job in jobs:
        for suffix in suffixes:
            for person in (world.alice, world.bob):
                if suffix == "/events" and (await person.http.get(f"/v1/jobs/{job}")).json().get("finished_at") is None:
                    continue
                told.append((await person.http.get(f"/v1/jobs/{job}{suffix}")).text)
    for path in ("/v1", "/v1/jobs", "/v1/sites", "/v1/whoami", "/openapi.json", "/readyz", "/healthz", "/docs"):
        told.append((await world.alice.http.get(path)).text)
    assert any('"spans"' in each for each in told)
    return told


def kept_files(folder: Path) -> dict[str, str]:
    """Every byte that is kept anywhere: databases with their journals, what ran at the sites, their own state."""
    return {
        str(file.relative_to(folder)): file.read_bytes().decode("latin-1")
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    }


def leaks(found: dict[str, set[str]], places: dict[str, str]) -> list[str]:
    """Each proof that stands somewhere it is not meant to be, plain or in base64."""
    return [
        f"{kind} in {place}"
        for kind, values in found.items()
        for value in values
        for place, text in places.items()
        if not Path(place.removesuffix("-wal").removesuffix("-shm")).name.startswith(MEANT.get(kind, ("-",)))
        and any(spelling in text for spelling in spellings(value))
    ]


def spellings(value: str) -> tuple[str, ...]:
    encoded = base64.b64encode(value.encode()).decode().rstrip("=")
    return value, encoded[:-2]
