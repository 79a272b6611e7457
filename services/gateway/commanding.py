"""Commands about what is there already: cancel a job, cordon and uncordon a site. The scheduler carries them out."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.gateway import granting, job_view, store
from services.gateway.access import Caller
from services.gateway.changes import Changes
from services.gateway.granting import Granting
from services.gateway.lookup import Lookup
from services.gateway.permissions import CORDON
from shared import ids
from shared.contracts import codec
from shared.contracts.commands import CancelJob, CordonSite, UncordonSite
from shared.contracts.envelope import Message
from shared.errors import Refused
from shared.ports import Clock
from shared.runtime.preconditions import ALWAYS, Condition, etag
from shared.runtime.transactions import Transactions, Unit

SOURCE: Final = "gateway"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job's document; `final` when it had ended before the request."""

    version: int
    body: bytes
    final: bool


class Commanding:
    """Each command is granted for its exact bytes and leaves with the transaction that records it."""

    def __init__(
        self, transactions: Transactions, granting: Granting, lookup: Lookup, changes: Changes, clock: Clock
    ) -> None:
        self._transactions = transactions
        self._granting = granting
        self._lookup = lookup
        self._changes = changes
        self._clock = clock

    async def cancel(self, caller: Caller, job_id: UUID, condition: Condition = ALWAYS) -> Cancelled:
        """Ask for the end of a job. Asking again, or for one that has ended, changes nothing.

        Raises Conflict (code `precondition_failed`) when the job is not as `condition` says, now or in the end.
        """
        row = await self._lookup.row(caller, job_id)
        condition.check(etag(row.version))
        view = job_view.JobView.model_validate_json(row.body)
        if view.cancel_requested_at is not None or job_view.is_final(view):
            return Cancelled(row.version, bytes(row.body), job_view.is_final(view))
        command = CancelJob(job_id=job_id, vo=row.vo, requested_by=caller.context.principal, requested_at=self._clock())
        body, own = codec.command_body(command), caller.sight.owns(row.owner_issuer, row.owner_subject)
        answers = await self._granting.ask(caller.token, [granting.item_for(CancelJob, body, row.vo, own=own)])
        message = codec.command_message(
            CancelJob, body, id=str(ids.command_id(CancelJob.kind, str(job_id))), source=SOURCE,
            time=command.requested_at, subject=str(job_id), grant=granting.granted(answers[0]),
            traceparent=ids.traceparent(job_id),
        )  # fmt: skip
        return await self._transactions.run(lambda unit: self._request(unit, command, message, condition))

    async def cordon(self, caller: Caller, command: CordonSite | UncordonSite) -> None:
        """Send an operator's command about a site. Raises Refused (code `forbidden`) for everybody else."""
        if CORDON not in caller.context.platform_verbs:
            raise Refused("only site operators may cordon sites; the platform's managers name them", code="forbidden")
        kind, body = type(command), codec.command_body(command)
        answers = await self._granting.ask(caller.token, [granting.item_for(kind, body, None)])
        id = ids.command_id(kind.kind, command.site, command.requested_at.isoformat())
        message = codec.command_message(
            kind, body, id=str(id), source=SOURCE, time=command.requested_at, subject=command.site,
            grant=granting.granted(answers[0]),
        )  # fmt: skip
        await self._transactions.run(lambda unit: unit.send(message))

    def _request(self, unit: Unit, command: CancelJob, message: Message, condition: Condition) -> Cancelled:
        key = str(command.job_id)
        before = store.views(unit.connection, [key])[key]
        condition.check(etag(before.version))
        after = job_view.cancel_requested(before, command.requested_at)
        if after is not before:
            store.save_views(unit.connection, [after])
            unit.send(message)
            unit.after_commit(lambda: self._changes.touch(key))
        return Cancelled(after.version, after.model_dump_json().encode(), job_view.is_final(after))
