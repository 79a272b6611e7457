"""RFC 9457 problems: the closed catalogue of codes, and how an error of ours becomes one. The only HTTP in errors.

Append a row for a new code; docs/problems.md is generated from this table.
"""

from dataclasses import dataclass
from typing import Any, Final

from shared.errors import Conflict, Misconfigured, NotFound, Refused, SeraiError, Unavailable

CONTENT_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """`mend` says what the reader can do about it; it is the text of the code's page in the documentation."""

    status: int
    title: str
    mend: str


PROBLEMS: dict[str, Problem] = {
    "invalid_request": Problem(
        422, "The request is not valid", "Each entry of `errors` names the place (JSON pointer) and what is accepted."
    ),
    "malformed_request": Problem(
        400, "The request is not well-formed HTTP", "The detail says what is unclear; most clients never send this."
    ),
    "uri_too_long": Problem(414, "The address is too long", "Send less in path and query."),
    "headers_too_large": Problem(431, "The headers are too large", "Send fewer and shorter ones; a token counts."),
    "request_timeout": Problem(408, "The request came too slowly", "Send it again, in one go."),
    "misdirected": Problem(
        421, "The request is meant for another host", "Use a name that the operators gave this service, see `Host`."
    ),
    "undecodable": Problem(400, "The body is not valid JSON", "Send one UTF-8 JSON object."),
    "unsupported_media_type": Problem(415, "The content type is not supported", "Send `application/json`."),
    "too_large": Problem(413, "The body is too large", "Send less; `limit` is in bytes."),
    "unknown_parameter": Problem(400, "A query parameter is not known", "The nearest known name is in the detail."),
    "invalid_cursor": Problem(400, "The cursor is not one of this list", "Start again without `cursor`."),
    "unauthenticated": Problem(
        401, "No valid access token", "Sign in (`serai login`) and send `Authorization: Bearer <token>`."
    ),
    "token_expired": Problem(401, "The access token has expired", "Sign in again (`serai login`)."),
    "grant_invalid": Problem(
        403, "The grant does not hold", "Between services only: ask auth for a grant over exactly this content."
    ),
    "grant_expired": Problem(403, "The grant has expired", "Between services only: ask auth again."),
    "forbidden": Problem(403, "Not allowed", "The detail says which role is needed and who gives it."),
    "secret_missing": Problem(
        422, "A secret that the job names is not there", "Set it (`serai secrets set NAME`) in the VO of the job."
    ),
    "secrets_too_large": Problem(
        422,
        "The secrets are too large",
        "A secret holds 32 KiB, all of one job together about 48 KiB; the detail has the figures.",
    ),
    "too_many_secrets": Problem(422, "There are too many secrets", "Delete those that no job needs any more."),
    "suspended": Problem(
        403, "Access is suspended", "The detail says what is suspended, why and until when; ask the operators."
    ),
    "not_found": Problem(
        404, "There is no such thing", "Check the id; things that you may not see look the same as absent ones."
    ),
    "method_not_allowed": Problem(405, "The method is not allowed here", "See the API reference."),
    "conflict": Problem(409, "It conflicts with what is there", "The detail says what is there already."),
    "idempotency_key_reused": Problem(
        409, "The Idempotency-Key was used for another request", "Use a new key for a new request."
    ),
    "subscription_limit": Problem(
        409, "There are as many subscriptions as there may be", "Delete one that is not needed any more."
    ),
    "subscriptions_unavailable": Problem(
        409,
        "This platform has no broker for subscribers",
        "Read `GET /v1/events` (SSE) instead, or ask the operators to set one up (docs/rabbitmq.md); on one machine, "
        "start the platform with `--bus amqp`.",
    ),
    "job_id_taken": Problem(409, "A job with this id has other content", "Use a fresh UUID for a new job."),
    "precondition_failed": Problem(412, "It has changed meanwhile", "Read it again and retry with its new ETag."),
    "refused": Problem(422, "The request was refused", "The detail says why."),
    "gone": Problem(410, "It is not kept any more", "See the retention times in the documentation."),
    "too_many_requests": Problem(429, "Too many requests", "Wait for the time in `Retry-After`."),
    "unavailable": Problem(503, "Not available at the moment", "Try again after the time in `Retry-After`."),
    "misconfigured": Problem(
        500, "The platform is misconfigured", "Tell the operators; the detail says what they need."
    ),
    "internal": Problem(500, "Something failed in the platform", "Tell the operators the trace id; try again."),
}


def code_of(error: Exception) -> str:
    """The catalogue code of an error: its own when it is listed, else that of its kind."""
    if isinstance(error, SeraiError) and error.code in PROBLEMS:
        return error.code
    for kind, code in _BY_KIND:
        if isinstance(error, kind):
            return code
    return "internal"


_BY_KIND: Final[tuple[tuple[type[Exception], str], ...]] = (
    (NotFound, "not_found"),
    (Conflict, "conflict"),
    (Refused, "refused"),
    (Unavailable, "unavailable"),
    (Misconfigured, "misconfigured"),
)


def document(
    code: str, detail: str, *, base: str = "", trace_id: str = "", **members: Any
) -> tuple[int, dict[str, Any]]:
    """Status and body of a problem; `type` is the URL of the code's page under `base`."""
    problem = PROBLEMS[code]
    body = {
        "type": f"{base}/problems/{code}", "title": problem.title, "status": problem.status, "detail": detail,
        "code": code,
    }  # fmt: skip
    if trace_id:
        body["trace_id"] = trace_id
    return problem.status, {**body, **{name: value for name, value in members.items() if value is not None}}
