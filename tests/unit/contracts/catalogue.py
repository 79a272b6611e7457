"""One full example of every message, from which the stored examples were made when a version was released."""

from datetime import timedelta

from shared.contracts import events as e
from shared.contracts.commands import CancelJob, Command, CordonSite, Principal, ReportProgress, SubmitJob, UncordonSite
from shared.contracts.reasons import ReasonCode, Verdict, VerdictCode, because
from shared.job import FailureClass, JobKind
from shared.site import GpuStock
from tests.builders import ALICE, NOON, VO, a_capacity, a_job, a_node, job_id

_LATER = NOON + timedelta(seconds=42)
_VERDICTS = (
    Verdict(site="prague", code=VerdictCode.FITS, message="fits", score=0.7, can_change=True),
    Verdict(site="lyon", code=VerdictCode.GPU_MISSING, message="no GPU here", asked=1, free=0, advice="ask for none"),
)

_TASK = Principal(issuer="https://nomad.prague.example", subject=f"prague:default:{job_id(1)}-001:main:main:serai")

COMMANDS: tuple[Command, ...] = (
    a_job(
        1,
        kind=JobKind.SERVICE,
        image="docker.io/library/busybox:1",
        env={"MODE": "full"},
        files=({"path": "data/in.txt", "content": "one two\n"},),
        outputs=({"name": "result", "path": "out.txt"},),
        resources={"cpu_cores": 2, "memory_mib": 512, "disk_mib": 1000, "gpus": {"count": 1, "model": "a100"}},
        placement={"allow_sites": ("prague",), "prefer_countries": ("CZ",)},
        retries={"attempts": 2, "on": (FailureClass.OUT_OF_MEMORY,)},
        labels={"project": "atlas"},
        metadata={"note": "first try"},
        endpoints=({"name": "http", "port": 8000, "health_path": "/"},),
    ),
    CancelJob(job_id=job_id(1), vo=VO, requested_by=ALICE, requested_at=NOON),
    CordonSite(site="prague", reason="maintenance", requested_by=ALICE, requested_at=NOON),
    UncordonSite(site="prague", requested_by=ALICE, requested_at=NOON),
    ReportProgress(
        job_id=job_id(1), attempt=1, vo=VO, reported_by=_TASK, reported_at=NOON, fraction=0.25, message="epoch 5 of 20",
        results={"loss": 0.125, "epoch": 5, "phase": "train", "best": True},
    ),
)  # fmt: skip

_JOB = {"job_id": job_id(1), "vo": VO, "owner": ALICE, "name": "count"}
_AT = {"job_id": job_id(1), "attempt": 1, "vo": VO, "site": "prague", "node": "node-1", "allocation": "a1b2"}
_END = {"started_at": NOON, "finished_at": _LATER, "nomad_says": "All tasks have completed"}

_EXIT_3 = because(ReasonCode.TASK_ERROR, exit_code=3)

EVENTS: tuple[e.Event, ...] = (
    e.JobQueued(**_JOB, sequence=1, reason=because(ReasonCode.WAITING_TO_BE_PLACED)),
    e.JobPlaced(**_JOB, sequence=2, attempt=1, site="prague", receipt=_VERDICTS),
    e.JobStarting(**_JOB, sequence=3, attempt=1, site="prague"),
    e.JobRunning(**_JOB, sequence=4, attempt=1, site="prague"),
    e.JobProgress(
        **_JOB, sequence=5, attempt=1, site="prague", fraction=0.25, message="epoch 5 of 20",
        results={"loss": 0.125, "epoch": 5, "phase": "train", "best": True},
    ),
    e.JobCancelling(**_JOB, sequence=5, attempt=1, site="prague", reason=because(ReasonCode.CANCELLED_BY_USER)),
    e.JobSucceeded(**_JOB, sequence=5, attempt=1, site="prague", exit_code=0, reason=because(ReasonCode.COMPLETED)),
    e.JobFailed(**_JOB, sequence=5, exit_code=3, reason=_EXIT_3, verdicts=_VERDICTS),
    e.JobCancelled(**_JOB, sequence=6, attempt=1, site="prague", confirmed=False),
    e.JobRejected(**_JOB, sequence=2, reason=because(ReasonCode.AUTHORISATION_EXPIRED)),
    e.AttemptPending(**_AT, sequence=1, reason=because(ReasonCode.WAITING_FOR_ROOM, cpu=1)),
    e.AttemptStarting(**_AT, sequence=2),
    e.AttemptRunning(**_AT, sequence=3, endpoints=(e.EndpointAddress(name="http", address="127.0.0.1:20001"),)),
    e.AttemptDisconnected(**_AT, sequence=4, since=NOON),
    e.AttemptSucceeded(**_AT, sequence=5, exit_code=0, **_END),
    e.AttemptFailed(**_AT, sequence=5, exit_code=137, signal=9, failure=FailureClass.OUT_OF_MEMORY, **_END),
    e.AttemptStopped(**_AT, sequence=5, exit_code=130, **_END),
    e.AttemptLost(**_AT, sequence=5, vanished=True, nomad_says="alloc is lost since its node is down"),
    e.SiteObserved(
        site="prague", occurrence=1,
        capacity=a_capacity(a_node(gpus=(GpuStock(model="a100", count=2),), foreign_cpu_mhz=500)),
    ),
    e.SiteReachable(site="prague", occurrence=2),
    e.SiteUnreachable(site="prague", occurrence=3, since=NOON, error="connection refused", vo=VO),
    e.SiteSuspect(site="prague", occurrence=4, error="40 of 41 attempts vanished together"),
    e.SiteStray(site="prague", occurrence=5, job_id=job_id(1), attempt=1),
)  # fmt: skip

__all__ = ["COMMANDS", "EVENTS", "SubmitJob"]
