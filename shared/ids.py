"""Identifiers: how jobs, attempts and facts are named. Pure; randomness and time are in `new_job_id` alone."""

import hashlib
import re
from typing import NamedTuple
from uuid import UUID, uuid5

import uuid6

JobId = UUID

_FACTS = UUID("7c0f7e52-6a0c-5b7e-9b44-6f0d8c0a51e1")
_NOMAD_ID = re.compile(r"^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-(\d{3,})$")


class AttemptId(NamedTuple):
    """One try to run a job at one site; attempts count from 1."""

    job_id: JobId
    number: int

    @property
    def nomad_id(self) -> str:
        """The Nomad job id of this attempt, `<job id>-<attempt as 001>`."""
        return f"{self.job_id}-{self.number:03d}"

    def __str__(self) -> str:
        return self.nomad_id


def new_job_id() -> JobId:
    """A fresh UUIDv7 (RFC 9562): sortable by time of creation."""
    return UUID(bytes=uuid6.uuid7().bytes)


def attempt_of(nomad_id: str) -> AttemptId | None:
    """The attempt that a Nomad job id stands for, or None when the job is not ours."""
    match = _NOMAD_ID.match(nomad_id)
    return AttemptId(UUID(match[1]), int(match[2])) if match else None


def fact_id(job_id: JobId, attempt: int, sequence: int) -> UUID:
    """The id of the event with this sequence number; attempt 0 is the job's own series.

    The same fact always has the same id, whoever computes it and however often.
    """
    return uuid5(_FACTS, f"{job_id}/{attempt}/{sequence}")


def site_fact_id(site: str, what: str, occurrence: str) -> UUID:
    """The id of a `site.*` event; `occurrence` tells one occurrence from the next."""
    return uuid5(_FACTS, f"site/{site}/{what}/{occurrence}")


def command_id(kind: str, subject: str, occurrence: str = "") -> UUID:
    """The id of a command: asking the same thing twice gives the same id, hence one effect."""
    return uuid5(_FACTS, f"command/{kind}/{subject}/{occurrence}")


def vo_token(vo: str) -> str:
    """A VO name as one routing-key word (`.` separates words there): `vo.example.org` -> `vo~example~org`."""
    return vo.replace(".", "~")


def trace_id(job_id: JobId) -> str:
    """The one W3C trace id of a job: its own 128 bits as 32 hex digits."""
    return job_id.hex


def root_span_id(job_id: JobId) -> str:
    """The id of the job's root span, known before the span exists (16 hex digits)."""
    return hashlib.sha256(job_id.bytes).hexdigest()[:16]


def traceparent(job_id: JobId) -> str:
    """The W3C `traceparent` of a job: everything done for it hangs below its root span."""
    return f"00-{trace_id(job_id)}-{root_span_id(job_id)}-01"
