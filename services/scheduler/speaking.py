"""Whether a job's own identity speaks for an attempt that lives now. Pure; used for questions and for reports.

The cluster that signed it must be one that speaks for the attempt's site, the namespace the attempt's own, and the
Nomad job id the whole id of the attempt: another job of the cluster, whatever its name or namespace, is not it.
"""

from services.scheduler.records import Job
from shared.contracts.questions import WorkloadIdentity
from shared.ids import AttemptId
from shared.job import FINAL_JOB_STATES


def objection(job: Job | None, workload: WorkloadIdentity) -> str:
    """Why it does not speak for the job, for logs and for who asks; empty when it does."""
    attempt = job.attempt if job is not None else None
    if job is None or attempt is None:
        return "there is no such attempt"
    if not workload.is_of(AttemptId(job.id, attempt.number)):
        return "it is not the job's present attempt"
    if attempt.namespace != workload.namespace or attempt.site not in workload.sites:
        return "it is from another place than the attempt"
    if job.state in FINAL_JOB_STATES or not attempt.current or attempt.outcome is not None:
        return "the attempt is over"
    return ""
