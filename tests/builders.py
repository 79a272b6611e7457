"""Values for tests: only the interesting field is spelled out."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from shared.contracts.commands import Principal, SubmitJob
from shared.job import JobSpec
from shared.site import NodeCapacity, Site, SiteCapacity

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ALICE = Principal(issuer="https://issuer.example", subject="alice", name="Alice")
BOB = Principal(issuer="https://issuer.example", subject="bob", name="Bob")
VO = "vo.climate.example"


class TestClock:
    """A clock that tests move by hand."""

    __test__ = False

    def __init__(self, start: datetime = NOON) -> None:
        self.now = start

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def job_id(number: int) -> UUID:
    """A readable job id, valid as UUIDv7."""
    return UUID(f"019aaaaa-0000-7000-8000-{number:012d}")


def a_spec(**fields: Any) -> JobSpec:
    return JobSpec.model_validate({"name": "count", "vo": VO, "command": ("true",)} | fields)


def a_job(number: int = 1, owner: Principal = ALICE, at: datetime = NOON, **fields: Any) -> SubmitJob:
    return SubmitJob(job_id=job_id(number), owner=owner, spec=a_spec(**fields), submitted_at=at)


def a_site(name: str = "prague", **fields: Any) -> Site:
    defaults = {"country": "CZ", "vos": (VO,), "cluster": name, "address": "http://127.0.0.1:4646", "region": name}
    return Site.model_validate({"name": name} | defaults | fields)


def a_node(name: str = "node-1", **fields: Any) -> NodeCapacity:
    defaults = {"cpu_mhz": 4000, "memory_mib": 8192, "disk_mib": 20_000, "drivers": ("raw_exec", "exec")}
    return NodeCapacity.model_validate({"name": name} | defaults | fields)


def a_capacity(*nodes: NodeCapacity) -> SiteCapacity:
    return SiteCapacity(nodes=nodes or (a_node(),))
