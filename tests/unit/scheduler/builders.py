"""Values of the scheduler's own for tests."""

from datetime import datetime, timedelta
from typing import Any

from services.scheduler import jobs
from services.scheduler.decisions import AttemptSeen, Decision, Effect, Input, Owe, Placed, Tell
from services.scheduler.jobs import Rules
from services.scheduler.placement import NodeRoom, SiteView, Snapshot
from services.scheduler.records import Job, Need, Outcome
from shared.contracts.events import JobEvent
from shared.job import AttemptStatus, FailureClass
from shared.site import GpuStock
from tests.builders import NOON, a_job, a_site

RULES = Rules()
NEED = Need(1000, 256, 300)


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def placed(site: str = "prague") -> Placed:
    return Placed(site=site, cluster=site, namespace="default", nonce="n", fence=1, need=NEED)


def seen(status: AttemptStatus, *, number: int = 1, sequence: int = 1, **outcome: Any) -> AttemptSeen:
    """An attempt event; with keywords it is an outcome."""
    ended = status in (AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.STOPPED, AttemptStatus.LOST)
    if status is AttemptStatus.FAILED:
        outcome = {"failure": FailureClass.TASK_ERROR, "exit_code": 3} | outcome
    return AttemptSeen(number, sequence, status, "node-1", Outcome(status, **outcome) if ended else None)


class History:
    """A job and everything that was told about it: `tell` one thing after the other."""

    def __init__(self, **spec: Any) -> None:
        self.now = NOON
        self.rules = RULES
        self.effects: list[Effect] = []
        decision = jobs.submitted(a_job(**spec), 0, NOON)
        self.job: Job = decision.job
        self._add(decision)

    def tell(self, *told: Input, after_s: float = 1) -> "History":
        for one in told:
            self.now += timedelta(seconds=after_s)
            self._add(jobs.decide(self.job, one, self.now, self.rules))
        return self

    def _add(self, decision: Decision) -> None:
        self.job = decision.job
        self.effects += decision.effects

    @property
    def events(self) -> list[JobEvent]:
        return [effect.event for effect in self.effects if isinstance(effect, Tell)]

    @property
    def states(self) -> list[str]:
        return [event.state.value for event in self.events]

    @property
    def owes(self) -> list[str]:
        return [effect.call.value for effect in self.effects if isinstance(effect, Owe)]

    @property
    def last(self) -> Any:
        return self.events[-1]


def a_room(name: str = "node-1", **fields: Any) -> NodeRoom:
    cpu, memory, disk = fields.get("cpu_mhz", 4000), fields.get("memory_mib", 8192), fields.get("disk_mib", 20_000)
    gpus: tuple[GpuStock, ...] = fields.get("gpus", ())
    defaults: dict[str, Any] = {
        "cpu_mhz": cpu, "memory_mib": memory, "disk_mib": disk, "cpu_free": cpu, "memory_free": memory,
        "disk_free": disk, "drivers": frozenset({"raw_exec"}), "gpus_free": gpus,
    }  # fmt: skip
    return NodeRoom(**({"name": name} | defaults | fields))


def gpus(count: int, model: str = "nvidia/gpu/A100") -> tuple[GpuStock, ...]:
    return (GpuStock(model=model, count=count),)


def a_view(name: str = "prague", *rooms: NodeRoom, site: dict[str, Any] | None = None, **fields: Any) -> SiteView:
    return SiteView(site=a_site(name, **(site or {})), **({"nodes": rooms or (a_room(),)} | fields))


def a_snapshot(*views: SiteView) -> Snapshot:
    return Snapshot({view.site.name: view for view in views})
