"""The values of a job's secrets, asked of auth at the moment of its register and handed to the site's Nomad: they are
never kept here. Called by `performing.py`.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.scheduler.records import Attempt, Job
from shared.contracts.questions import SecretsAnswer, SecretsRequest
from shared.contracts.reasons import Reason, ReasonCode, because
from shared.ids import AttemptId
from shared.runtime.questions import Questions


@dataclass(frozen=True, slots=True)
class Released:
    """The values by name, or (`refusal`) why the job may not have them."""

    values: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    refusal: Reason | None = None


class Releasing:
    """Asks auth. Raises Unavailable while it is away: the register is then tried again."""

    def __init__(self, auth: Questions) -> None:
        self._auth = auth

    async def of(self, job: Job, attempt: Attempt) -> Released:
        """What an attempt needs; nothing, without a question, for a job that names none."""
        names = tuple(dict.fromkeys(secret.name for secret in job.spec.secrets))
        if not names:
            return Released()
        asked = SecretsRequest(
            principal=job.owner, vo=job.spec.vo, site=attempt.site, attempt=str(AttemptId(job.id, attempt.number)),
            names=names,
        )  # fmt: skip
        answer = await self._auth.ask("POST", "/internal/secrets:release", SecretsAnswer, body=asked)
        if answer.code:
            return Released(refusal=_refusal(answer))
        return Released({name: base64.b64decode(value) for name, value in answer.values.items()})


def _refusal(answer: SecretsAnswer) -> Reason:
    if answer.code == ReasonCode.SECRET_MISSING:
        return because(ReasonCode.SECRET_MISSING, f"The job was not started: {answer.message}")
    return because(ReasonCode.NOT_AUTHORISED, f"The owner may not run this job any more: {answer.message}")
