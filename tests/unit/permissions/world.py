"""Gateway and auth as they are, in one process, with users of every role; scheduler and monitor answer for all."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import httpx2 as httpx
from fastapi import FastAPI

from services.auth.issuers import Issuer
from services.monitor import api as monitor_api
from services.scheduler import api as scheduler_api
from shared.contracts.events import JobPlaced
from shared.errors import Unavailable
from shared.runtime.in_process import InProcessTransport
from shared.runtime.service_identity import Door
from tests.builders import TestClock
from tests.doubles.subscriber_broker import MemorySubscribers
from tests.unit.auth.world import Auth, FakeIssuer, auth, entitlement, signed, trusted
from tests.unit.gateway import world as gateway_world
from tests.unit.gateway.world import OTHER_VO, VO, AuthDouble, BusDouble, OwnersDouble, World, job_event, queued

SERVICE_TOKEN = "service-token"
PLATFORM = "serai-platform"
ROLES: dict[str, list[tuple[str, str]]] = {
    "no VO": [], "other VO": [(OTHER_VO, "manager")], "observer": [(VO, "observer")], "member": [(VO, "member")],
    "owner": [(VO, "member")], "operator": [(VO, "operator")], "manager": [(VO, "manager")],
    "service account": [(VO, "member")], "site-operator": [(PLATFORM, "site-operator")], "admin": [(PLATFORM, "admin")],
}  # fmt: skip


class _NobodyHome:
    """A store that does not answer: who came as far as that was let in."""

    async def read(self, *_: Any) -> Any:
        raise Unavailable("the store is away in this test")

    read_long = read


@dataclass
class Platform:
    """All that is asked, and who asks."""

    gateway: World
    auth: Auth
    issuer: FakeIssuer
    cluster: FakeIssuer
    apps: dict[str, FastAPI]
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    def headers(self, who: str, job: str = "") -> dict[str, str]:
        """How somebody presents himself; `job`: which one runs."""
        if who == "no token":
            return {}
        if who == "running job":
            return {"Authorization": f"Bearer {self._task_token(job)}"}
        held = [entitlement(vo, role) for vo, role in ROLES[who]]
        client = "workflow-engine" if who == "service account" else "serai-cli"
        token = self.issuer.token(sub=who.replace(" ", "-"), client_id=client, entitlements=held)
        return {"Authorization": f"Bearer {token}"}

    def _task_token(self, job: str) -> str:
        """The token of a task, signed by the cluster that it runs at."""
        name = f"{job or uuid4()}-001"
        self.gateway.owners.living.add(name)
        now = int(self.auth.clock().timestamp())
        return signed(self.cluster.key, {
            "iss": self.cluster.url, "aud": "serai", "sub": f"prague:default:{name}:main:main:serai", "iat": now,
            "exp": now + 900, "nomad_job_id": name, "nomad_namespace": "default", "nomad_allocation_id": "a1",
            "nomad_task": "main",
        }, typ="JWT")  # fmt: skip

    async def ask(self, service: str, method: str, path: str, headers: dict[str, str], **more: Any) -> httpx.Response:
        return await self.clients[service].request(method, path, headers=headers, **more)

    async def a_job(self, *, placed: bool = False) -> str:
        """A job of the owner."""
        answer = await self.ask("gateway", "POST", "/v1/jobs", self.headers("owner"), json=gateway_world.a_file())
        assert answer.status_code == 202, answer.text
        job = str(answer.json()["id"])
        if placed:
            await self.gateway.tell(queued(job, 1), job_event(JobPlaced, job, 2, attempt=1, site="prague"))
        return job


@asynccontextmanager
async def a_platform(folder: Path) -> AsyncIterator[Platform]:
    issuer, clock, cluster = FakeIssuer(), TestClock(), FakeIssuer("https://nomad.prague.example")
    trust = trusted(issuer.url, vos=(VO, OTHER_VO))
    at_prague = Issuer(
        issuer=cluster.url, profile="nomad", audiences=("serai",), algorithms=("ES256",), sites=("prague",)
    )
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            auth(folder, issuer, cluster, trust=(trust, at_prague), clock=clock, service_token=SERVICE_TOKEN)
        )
        asked = AuthDouble()
        asked.app = cast(FastAPI, running.service.app)
        gateway = await stack.enter_async_context(
            gateway_world.restarted(folder, asked, OwnersDouble(), BusDouble(), clock, subscribers=MemorySubscribers())
        )
        gateway.owners.log_lines.append(b"line\n")
        nobody: Any = SimpleNamespace(store=_NobodyHome())
        verifier = running.grants
        answers = scheduler_api.Answers(nobody, cast(Any, None), cast(Any, verifier), cast(Any, None), {})
        kept = monitor_api.Answers(nobody, cast(Any, None), cast(Any, None), cast(Any, verifier), cast(Any, None))
        apps = {
            "gateway": gateway.service.app._app, "auth": running.service.app,
            "scheduler": scheduler_api.build(answers, Door("scheduler", {}, shared=SERVICE_TOKEN)),
            "monitor": monitor_api.make_app(kept, Door("monitor", {}, shared=SERVICE_TOKEN)),
        }  # fmt: skip
        made = Platform(gateway, running, issuer, cluster, apps)
        for name, app in (apps | {"gateway": gateway.service.app}).items():
            client = httpx.AsyncClient(transport=InProcessTransport(app), base_url=f"http://{name}")
            made.clients[name] = await stack.enter_async_context(client)
        yield made
