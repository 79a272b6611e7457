"""Users who hand in jobs while the platform dies under them, and remember every 202."""

import random
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import httpx2 as httpx

from services.auth.dev_issuer import demo_token
from shared.errors import SeraiError
from tests import pacing
from tests.system.crash.oracle import END, MARKS, START
from tests.system.crash.world import VO


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort of job and what must become of it. `runs`: for each attempt, whether its command comes to its end."""

    script: str
    state: str
    runs: tuple[bool, ...]
    retries: int = 0
    cancel: bool = False


SORTS: Final = (
    Sort(f"{START}; {END}", "succeeded", (True,)),
    Sort(f"{START}; sleep 1; {END}", "succeeded", (True,)),
    Sort(f"{START}; sleep 3; {END}", "succeeded", (True,)),
    Sort(f'{START}; sleep 0.3; {END}; case "$NOMAD_JOB_ID" in *-001) exit 3;; esac', "succeeded", (True, True), 1),
    Sort(f"{START}; exec sleep 600", "cancelled", (False,), cancel=True),
)


@dataclass
class HandedIn:
    """One job as its user knows it: `job_id` is there once a 202 has come."""

    key: str
    sort: Sort
    marks: Path
    job_id: str = ""
    cancel_taken: bool = False


class Platform(Protocol):
    """Where `issuer` and `gateway` answer now; with several gateways another one at each look."""

    @property
    def addresses(self) -> Mapping[str, Any]: ...


P = TypeVar("P", bound=Platform)


@dataclass
class Users(Generic[P]):
    """Hand in, cancel, and ask again after each death, with the same keys.

    `answers` counts what came back; `broken` are the answers that no well-behaved service gives: a failure without
    Retry-After, or a connection that ended under a request.
    """

    platform: P
    marks: Path
    rng: random.Random
    jobs: list[HandedIn] = field(default_factory=list)
    token: str = ""
    answers: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    client: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(trust_env=False, timeout=10))

    async def hand_in_for_ever(self, pause_s: float) -> None:
        """One user's work, until cancelled."""
        while True:
            await self.hand_in(self.rng.choice(SORTS))
            await pacing.pause(self.rng.uniform(0, 2 * pause_s))

    async def hand_in(self, sort: Sort, on_lost: str = "retry") -> HandedIn:
        """One job, up to its 202 (and the 202 of its cancel, where it is to be cancelled)."""
        key = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        one = HandedIn(key, sort, self.marks / key)
        self.jobs.append(one)
        await self.finish(one, on_lost)
        return one

    async def finish(self, one: HandedIn, on_lost: str = "retry") -> None:
        """Whatever of it was not answered yet."""
        job = {
            "name": one.key, "vo": VO, "command": ["sh", "-c", one.sort.script], "env": {MARKS: str(one.marks)},
            "resources": {"cpu": 0.05, "memory": "16MiB"}, "retries": {"attempts": one.sort.retries},
            "on_lost": on_lost,
        }  # fmt: skip
        if not one.job_id:
            answer = await self.ask("POST", "/v1/jobs", json=job, headers={"Idempotency-Key": one.key})
            assert answer.status_code == 202, answer.text
            one.job_id = answer.json()["id"]
        if one.sort.cancel and not one.cancel_taken:
            await self.until(lambda: one.marks.exists())
            answer = await self.ask("DELETE", f"/v1/jobs/{one.job_id}")
            assert answer.status_code in (200, 202), answer.text
            one.cancel_taken = True

    async def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **given: Any) -> httpx.Response:
        """The answer, however often the platform dies meanwhile."""
        while True:
            if (answer := await self._ask_once(method, path, headers or {}, given)) is not None:
                return answer
            await pacing.pause(0.05)

    async def _ask_once(
        self, method: str, path: str, headers: Mapping[str, str], given: Mapping[str, Any]
    ) -> httpx.Response | None:
        try:
            if not self.token:
                self.token = await demo_token(self.platform.addresses["issuer"], "alice")
            told = {"Authorization": f"Bearer {self.token}", **headers}
            url = self.platform.addresses["gateway"] + path
            answer = await self.client.request(method, url, headers=told, **given)
        except (httpx.TransportError, SeraiError, KeyError) as error:
            self.answers[type(error).__name__] += 1
            if not isinstance(error, httpx.ConnectError):
                self.broken.append(f"{method} {path}: {error!r}")
            return None
        self.answers[str(answer.status_code)] += 1
        if answer.status_code < 500:
            return answer
        if answer.status_code != 503 or "Retry-After" not in answer.headers:
            self.broken.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return None

    async def state(self, one: HandedIn) -> dict[str, Any]:
        """The job as it is now."""
        found: dict[str, Any] = (await self.ask("GET", f"/v1/jobs/{one.job_id}")).json()
        return found

    async def until(self, true: Any) -> None:
        """A condition outside of this process."""
        while not true():
            await pacing.pause(0.02)
