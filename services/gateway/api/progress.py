"""The route by which a running job tells how far it has come."""

from typing import Annotated

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.gateway import requests
from services.gateway.access import Access
from services.gateway.api import bodies, routing
from services.gateway.lookup import job_id_of
from services.gateway.reporting import Progress, Reporting

PERMISSION = "job.report"
_BODY_LIMIT = 16_384

Number = Annotated[float, Field(allow_inf_nan=False)]
Words = Annotated[str, StringConstraints(max_length=256)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ProgressInput(BaseModel):
    """What a task says of itself; everybody who may see the job sees it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    fraction: Annotated[Number, Field(ge=0, le=1)] | None = Field(default=None, description="From 0 to 1.")
    message: Annotated[str, StringConstraints(max_length=500)] = Field(default="", description="For people.")
    results: dict[Name, int | Number | bool | Words] = Field(
        default={}, max_length=16, description="Small figures, such as a loss; files belong into `outputs`."
    )


class ProgressAnswer(BaseModel):
    """It is kept and will be told as `job.progress`."""

    job_id: str
    attempt: int
    reported_at: str


class ProgressRoutes:
    """See the route's own words; they are the API's documentation."""

    def __init__(self, access: Access, reporting: Reporting) -> None:
        self._access = access
        self._reporting = reporting

    def add_to(self, app: FastAPI) -> None:
        """Add the route."""
        routing.add(
            app, "POST", "/v1/jobs/{job_id}/progress", self.report_progress, tag="jobs", permission=PERMISSION,
            answer=ProgressAnswer, status=202, body="ProgressInput",
            problems=("not_found", "forbidden", "invalid_request", "undecodable", "unsupported_media_type", "too_large",
                      "too_many_requests"),
        )  # fmt: skip

    async def report_progress(self, request: Request, job_id: str) -> Response:
        """Tell how far this job has come. For the job itself only, with the token in its `SERAI_TOKEN_FILE`."""
        caller, id = await self._access.anybody(request), job_id_of(job_id)
        body = await bodies.read_body(request, _BODY_LIMIT)
        given = requests.read(ProgressInput, bodies.decode_json(request, body))
        told = await self._reporting.report(caller, id, Progress(given.fraction, given.message, given.results))
        answer = {"job_id": str(id), "attempt": told.attempt, "reported_at": told.reported_at.isoformat()}
        return routing.json_bytes(orjson.dumps(answer), status=202)
