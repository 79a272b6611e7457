"""What changes a cluster: register, close, plan, and the variables of secrets. The port JobEngine over python-nomad.

python-nomad is synchronous: its calls run in a few threads of our own, over `session.LeanSession`. It is used by its
endpoint classes, since its `Nomad` class also reads address, token and namespace from the environment. Nothing is
retried here: after OutcomeUnknown the caller asks the same again, and EnforceIndex with the nonce makes that safe.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from nomad import api
from nomad.api.exceptions import BaseNomadException, VariableConflict
from urllib3.exceptions import ConnectTimeoutError, EmptyPoolError, HTTPError, NewConnectionError

from shared.adapters.nomad.answers import error_of, says_taken
from shared.adapters.nomad.parsing import failures_of
from shared.adapters.nomad.policies import DEREGISTER, DESTROY, OLD_SUBMIT, PLAN, READ, REGISTER, VARIABLES, WRITE
from shared.adapters.nomad.reading import NomadReader
from shared.adapters.nomad.session import Answer, LeanSession
from shared.adapters.nomad.settings import ClusterSettings
from shared.adapters.nomad.specification import NONCE_KEY, TOMBSTONE_KEY, job_of, only_if_new, tombstone_of
from shared.adapters.nomad.trust import trouble
from shared.adapters.nomad.variables import PREFIX, items_of, owners_of, path_of
from shared.engine import AttemptOrder, Closing, NomadJob, Plan, Submission, Submitted
from shared.errors import Misconfigured, NotFound, OutcomeUnknown, Refused, SeraiError, Unavailable
from shared.ids import AttemptId

T = TypeVar("T")

_TRIES = 3
_CLIENT_TERMINAL = frozenset({"complete", "failed", "lost"})


class _Taken(SeraiError):
    """The id of a register was used before."""


class _Conflict(SeraiError):
    """A check-and-set found something else. Nomad's answer holds the variable's content: it goes into no error."""


class _Api:
    """python-nomad's endpoints over one session."""

    def __init__(self, settings: ClusterSettings) -> None:
        self.session = LeanSession(settings)
        given: dict[str, Any] = {
            "address": settings.address,
            "token": None,
            "region": settings.region or None,
            "verify": True,
            "session": self.session,
        }
        self.jobs = api.Jobs(**given)
        self.job = api.Job(**given)
        self.validate = api.Validate(**given)
        self.variable = api.Variable(**given)
        self.variables = api.Variables(**given)


class NomadEngine:
    """JobEngine of one cluster."""

    def __init__(self, settings: ClusterSettings, reader: NomadReader) -> None:
        self._settings = settings
        self._reader = reader
        self._nomad = _Api(settings)
        self._threads = ThreadPoolExecutor(settings.calls_at_a_time, thread_name_prefix=f"nomad-{settings.name}")

    async def submit(self, order: AttemptOrder) -> Submission:
        """As `JobEngine.submit` promises; one call where the id is new, two where it is not."""
        try:
            job, secrets = job_of(order, self._settings), items_of(order)
        except Refused as refused:
            return Submission(Submitted.INVALID, refused.what)
        if secrets:
            await self._put_variable(order, secrets)
        try:
            await self._register(job)
        except _Taken:
            return await self._read_back(order)
        except OutcomeUnknown as unclear:
            return await self._judge(job, unclear)
        return Submission(Submitted.ACCEPTED)

    async def forget(self, attempt: AttemptId, namespace: str) -> None:
        """As `JobEngine.forget` promises; Nomad answers 204 where there is no variable."""
        path = path_of(attempt.nomad_id)
        needs = _needs(DESTROY, namespace)
        await self._call(lambda nomad: nomad.variable.delete_variable(path, namespace=namespace), needs, wrote=True)

    async def kept_secrets(self) -> Sequence[tuple[str, str]]:
        """As `JobEngine.kept_secrets` promises."""
        listed = await self._call(
            lambda nomad: nomad.variables.get_variables(PREFIX, namespace="*"), _needs(VARIABLES, "*")
        )
        return owners_of(listed)

    async def close(self, attempt: AttemptId, namespace: str) -> Closing:
        """As `JobEngine.close` promises: tombstone first; where that loses, stop what is there.

        What is there is read also after the tombstone was taken: an older Nomad may take two at once (`_never_ran`).
        """
        with contextlib.suppress(_Taken):
            await self._register(tombstone_of(attempt, namespace))
        return await self._stop(attempt.nomad_id, namespace)

    async def plan(self, order: AttemptOrder) -> Plan:
        """As `JobEngine.plan` promises."""
        job = job_of(order, self._settings)
        try:
            needs = _needs(PLAN, order.namespace)
            answer = await self._call(lambda nomad: nomad.job.plan_job(job["ID"], {"Job": job}), needs)
        except Unavailable as unclear:
            raise Refused(words, code="invalid") if (words := await self._faults(job)) else unclear from unclear
        return Plan(failures_of(answer.get("FailedTGAllocs")), answer.get("Warnings") or "")

    async def namespaces(self) -> frozenset[str]:
        """The namespaces that the token may see."""
        return await self._reader.namespaces()

    async def ready(self) -> None:
        """As `JobEngine.ready` promises."""
        await self._reader.ready()

    async def aclose(self) -> None:
        """Let calls under way end, then close the connections."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        self._nomad.session.close()

    async def _register(self, job: NomadJob) -> None:
        needs = _needs(REGISTER, job["Namespace"])
        await self._call(lambda nomad: nomad.jobs.register_job(only_if_new(job)), needs, wrote=True)

    async def _put_variable(self, order: AttemptOrder, items: dict[str, str]) -> None:
        """Check-and-set: made if it is not there, else changed from exactly what was seen there."""
        path, index = path_of(order.attempt.nomad_id), 0
        for _ in range(_TRIES):
            if await self._set(path, order.namespace, items, index):
                return
            found = await self._variable(path, order.namespace)
            if found.get("Items") == items:
                return
            index = int(found.get("ModifyIndex") or 0)
        raise OutcomeUnknown(f"cluster {self._settings.name}: others keep changing the secrets of {order.attempt}")

    async def _set(self, path: str, namespace: str, items: dict[str, str], index: int) -> bool:
        payload = {"Namespace": namespace, "Path": path, "Items": items}
        try:
            await self._call(
                lambda nomad: nomad.variable.create_variable(path, payload, namespace=namespace, cas=index),
                _needs(WRITE, namespace), wrote=True,
            )  # fmt: skip
        except _Conflict:
            return False
        return True

    async def _variable(self, path: str, namespace: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await self._call(
                lambda nomad: nomad.variable.get_variable(path, namespace=namespace), _needs(VARIABLES, namespace)
            )
        except NotFound:
            return {}
        return found

    async def _read_back(self, order: AttemptOrder) -> Submission:
        found = await self._job(order.attempt.nomad_id, order.namespace)
        if found is None:
            raise OutcomeUnknown(f"{order.attempt} was there and is gone: collected as garbage meanwhile")
        meta = found.get("Meta") or {}
        if TOMBSTONE_KEY in meta:
            return Submission(Submitted.CLOSED)
        if meta.get(NONCE_KEY) == order.nonce:
            return Submission(Submitted.ALREADY_THERE)
        return Submission(Submitted.FOREIGN, f"a job {order.attempt} with another nonce is there")

    async def _judge(self, job: NomadJob, unclear: OutcomeUnknown) -> Submission:
        """Nomad says 500 to an invalid job as to any trouble of its own: its validation tells which it was."""
        if unclear.code == "nomad_unclear" and (words := await self._faults(job)):
            return Submission(Submitted.INVALID, words)
        raise unclear

    async def _faults(self, job: NomadJob) -> str:
        """What is wrong with a job in Nomad's words; empty for nothing."""
        needs = _needs(READ, job["Namespace"])
        answer = await self._call(lambda nomad: nomad.validate.validate_job({"Job": job}).json(), needs)
        return str(answer.get("Error") or "; ".join(answer.get("ValidationErrors") or ()))

    async def _stop(self, nomad_id: str, namespace: str) -> Closing:
        found = await self._job(nomad_id, namespace)
        if found is None:
            raise OutcomeUnknown(f"{nomad_id} was there and is gone: collected as garbage meanwhile")
        if _never_ran(found):
            return Closing.NEVER_RAN
        needs = _needs(READ, namespace)
        allocations = await self._call(lambda nomad: nomad.job.get_allocations(nomad_id, namespace=namespace), needs)
        over = found.get("Status") == "dead" and all(a["ClientStatus"] in _CLIENT_TERMINAL for a in allocations)
        if not found.get("Stop"):
            needs = _needs(DEREGISTER, namespace)
            await self._call(lambda nomad: nomad.job.deregister_job(nomad_id, namespace=namespace), needs, wrote=True)
        return Closing.ENDED if over else Closing.STOPPING

    async def _job(self, nomad_id: str, namespace: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._call(
                lambda nomad: nomad.job.get_job(nomad_id, namespace=namespace), _needs(READ, namespace)
            )
        except NotFound:
            return None
        return found

    async def _call(self, call: Callable[[_Api], T], needs: str, *, wrote: bool = False) -> T:
        """Run a call in a thread, with a deadline for all of it, and translate what goes wrong."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._translated, call, needs, wrote)
        deadline = self._settings.connect_timeout_s + self._settings.call_timeout_s + 1
        try:
            async with asyncio.timeout(deadline):
                return await running
        except TimeoutError as late:
            raise self._no_answer(f"no answer within {deadline:g} s", wrote) from late

    def _translated(self, call: Callable[[_Api], T], needs: str, wrote: bool) -> T:
        try:
            return call(self._nomad)
        except VariableConflict:
            raise _Conflict(f"cluster {self._settings.name}: a variable is not as it was") from None
        except BaseNomadException as failed:
            raise self._meaning(failed.nomad_resp, needs, wrote) from failed
        except HTTPError as failed:
            raise self._lost(failed, wrote) from failed
        except ValueError as failed:
            raise self._no_answer(f"the answer is not JSON: {failed}", wrote) from failed

    def _meaning(self, answer: Answer, needs: str, wrote: bool) -> SeraiError:
        where = f"cluster {self._settings.name}"
        if wrote and says_taken(answer.status_code, answer.text):
            return _Taken(f"{where}: {answer.text}")
        return error_of(answer.status_code, answer.text, where, wrote=wrote, needs=needs)

    def _lost(self, failed: HTTPError, wrote: bool) -> SeraiError:
        if mend := trouble(failed):
            return Misconfigured(f"cluster {self._settings.name}: {failed} ({mend})", code="nomad_tls")
        never_sent = isinstance(failed, NewConnectionError | ConnectTimeoutError | EmptyPoolError)
        return self._no_answer(f"{type(failed).__name__}: {failed}", wrote and not never_sent)

    def _no_answer(self, why: str, wrote: bool) -> Unavailable:
        said = f"cluster {self._settings.name}: {why}"
        return OutcomeUnknown(said, code="nomad_no_answer") if wrote else Unavailable(said, code="nomad_unavailable")


def _never_ran(found: Mapping[str, Any]) -> bool:
    """Whether a tombstone came first. An older Nomad looks at the index before it writes, not while it writes: a
    register under way may then be laid over a tombstone, or the other way round, and the job's version tells.
    """
    return TOMBSTONE_KEY in (found.get("Meta") or {}) and not found.get("Version")


def _needs(capability: str, namespace: str) -> str:
    """For people: what a token must be allowed, and where."""
    older = f" (before Nomad 1.11.2: {OLD_SUBMIT})" if capability in (REGISTER, DEREGISTER, PLAN) else ""
    return f"{capability}{older} in namespace {namespace}"
