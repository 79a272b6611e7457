"""What follows for a job whose SubmitJob was set aside: it ends `rejected`, however little of the command can be read.

Nothing is executed by what is read here, so nothing of it is verified: who may send commands could end a job that the
scheduler does not know in any other way as well, and one that it knows is left alone.
"""

from typing import Any
from uuid import UUID

import orjson
from pydantic import ValidationError

from services.scheduler import store
from services.scheduler.handlers import Context
from shared.contracts import routes
from shared.contracts.commands import SubmitJob
from shared.contracts.envelope import Message
from shared.contracts.reasons import ReasonCode, because
from shared.errors import Refused
from shared.runtime import logs
from shared.runtime.tokens import granted_claims
from shared.runtime.transactions import Unit

log = logs.get("scheduler.dead_letters")


def reject(context: Context, unit: Unit, message: Message, reason: str) -> None:
    """A command was set aside. A SubmitJob among them ends its job, unless that job is known by another message."""
    if (message.exchange, message.routing_key) != routes.command_route(SubmitJob):
        return
    command = _whole(message) or _known_fields(message) or _by_its_grant(message, unit)
    if command is None:
        log.critical("submit_of_no_job", id=message.id, reason=reason)
    elif not store.known(unit.connection, command.job_id):
        why = because(ReasonCode.DEAD_LETTERED, f"The request could not be handled: {reason[:500]}")
        context.keeper.reject(unit, command, why)


def _whole(message: Message) -> SubmitJob | None:
    try:
        return SubmitJob.model_validate_json(message.body)
    except ValidationError:
        return None


def _known_fields(message: Message) -> SubmitJob | None:
    """The command of a later release, without what we do not know."""
    try:
        known = {name: value for name, value in orjson.loads(message.body).items() if name in SubmitJob.model_fields}
        spec = known["spec"]
        return SubmitJob.model_validate(known | {"spec": _bare(spec["name"], spec["vo"])})
    except (ValidationError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def _by_its_grant(message: Message, unit: Unit) -> SubmitJob | None:
    """The command as far as the headers tell: the job's id, and whose it is."""
    try:
        claims = granted_claims(message.headers["x-grant"])
        job_id = UUID(message.headers["ce-subject"])
        spec = _bare("unreadable", claims.vo or "")
        return SubmitJob.model_validate(
            {"job_id": job_id, "owner": claims.principal, "spec": spec, "submitted_at": unit.now}
        )
    except (ValidationError, ValueError, KeyError, Refused):
        return None


def _bare(name: Any, vo: Any) -> dict[str, Any]:
    return {"name": name, "vo": vo, "command": ["-"]}
