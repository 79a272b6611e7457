"""What a cluster holds: listings, one job's rows, and proof that something is not there. Read only, asynchronous.

Called by `cluster.py`, which puts it behind the port EngineWatch. Never stale: all reads go to the leader.
"""

import asyncio
from collections.abc import Sequence
from typing import cast

from shared.adapters.nomad.http import NomadHttp
from shared.adapters.nomad.parsing import Row, allocation_of, evaluation_of, job_of, node_of
from shared.adapters.nomad.policies import READ
from shared.adapters.nomad.settings import ClusterSettings
from shared.engine import AllocationSeen, Listing, Presence
from shared.errors import Misconfigured, NotFound, SeraiError, Unavailable
from shared.namespaces import DEFAULT

_NO_JOB = "serai-asks-whether-it-may-read"
_OPEN_EVALUATIONS = 'Status != "complete" and Status != "canceled"'


class NomadReader:
    """Reads of one cluster. Raises Unavailable or Misconfigured unless a method says more."""

    def __init__(self, settings: ClusterSettings, http: NomadHttp) -> None:
        self._settings = settings
        self._http = http

    async def listing(self) -> Listing:
        """Everything of all namespaces; evaluations only while open or failed (finished ones tell nothing more)."""
        try:
            async with asyncio.timeout(self._settings.listing_timeout_s):
                jobs, allocations, evaluations, nodes = await asyncio.gather(
                    self._pages("/v1/jobs", {"namespace": "*", "meta": "true"}),
                    self._pages("/v1/allocations", {"namespace": "*", "resources": "true"}),
                    self._pages("/v1/evaluations", {"namespace": "*", "filter": _OPEN_EVALUATIONS}),
                    self._pages("/v1/nodes", {"resources": "true"}),
                )
        except TimeoutError as late:
            raise self._unavailable(f"no listing within {self._settings.listing_timeout_s:g} s") from late
        parts = (jobs, allocations, evaluations, nodes)
        return Listing(
            index=min(part.index for part in parts),
            jobs=tuple(job_of(row) for row in jobs.rows),
            allocations=tuple(allocation_of(row) for row in allocations.rows),
            evaluations=tuple(evaluation_of(row) for row in evaluations.rows),
            nodes=tuple(node_of(row) for row in nodes.rows),
            known_leader=all(part.known_leader for part in parts),
        )

    async def _pages(self, path: str, params: dict[str, str]) -> "_Rows":
        """All pages; the index is the first page's, since what changed later will come on the stream."""
        rows: list[Row] = []
        wanted: dict[str, str | int] = {**params, "per_page": self._settings.page_size}
        answer = await self._http.get(path, wanted, timeout_s=self._settings.listing_timeout_s)
        first, leader = answer, answer.known_leader
        rows += answer.json() or ()
        while answer.next_token:
            wanted["next_token"] = answer.next_token
            answer = await self._http.get(path, wanted, timeout_s=self._settings.listing_timeout_s)
            leader = leader and answer.known_leader
            rows += answer.json() or ()
        return _Rows(rows, first.index, leader)

    async def presence(self, job_id: str, namespace: str) -> Presence:
        """ABSENT only where the same round shows a 404 of the leader, a leader, and a token that may read."""
        try:
            await self._http.get(f"/v1/job/{job_id}", {"namespace": namespace})
        except NotFound:
            return await self._absence()
        except SeraiError:
            return Presence.UNPROVEN
        return Presence.PRESENT

    async def _absence(self) -> Presence:
        try:
            await self.ready()
        except SeraiError:
            return Presence.UNPROVEN
        return Presence.ABSENT

    async def allocations(self, job_id: str, namespace: str) -> Sequence[AllocationSeen]:
        """All allocations of a job, also those of an earlier life of its id; none for an unknown job."""
        answer = await self._http.get(f"/v1/job/{job_id}/allocations", {"namespace": namespace, "all": "true"})
        return [allocation_of(row) for row in answer.json() or ()]

    async def job_meta(self, job_id: str, namespace: str) -> dict[str, str] | None:
        """The job's meta, None when it is gone."""
        try:
            answer = await self._http.get(f"/v1/job/{job_id}", {"namespace": namespace})
        except NotFound:
            return None
        return cast("dict[str, str]", answer.json().get("Meta") or {})

    async def namespaces(self) -> frozenset[str]:
        """The namespaces that the token may see."""
        answer = await self._http.get("/v1/namespaces")
        return frozenset(row["Name"] for row in answer.json() or ())

    async def ready(self) -> None:
        """Return when a leader and our token are proven. Raises Unavailable or Misconfigured with the culprit."""
        leader, token = await asyncio.gather(self._http.get("/v1/status/leader"), self._http.get("/v1/acl/token/self"))
        if not leader.json():
            raise self._unavailable("no leader")
        if token.json().get("AccessorID") == "anonymous":
            raise Misconfigured(
                f"cluster {self._settings.name} has ACLs and we have no token: set one", code="nomad_token"
            )
        jobs = await self._http.get("/v1/jobs", {"namespace": "*", "per_page": 1})
        if not jobs.known_leader:
            raise self._unavailable("the agent knows no leader")

    async def may_stream(self) -> None:
        """Return when nothing that we can ask for is denied to a stream. Raises Misconfigured with what is.

        A denied stream says nothing at all, and one call more or less a namespace is little when it was. Every Nomad
        has the namespace `default`: who does not see it has no rights in all.
        """
        await self._http.get("/v1/nodes", {"per_page": 1})
        seen = sorted(await self.namespaces())
        if DEFAULT not in seen:
            only = ", ".join(seen) or "(none)"
            raise Misconfigured(
                f"cluster {self._settings.name}: the token sees only the namespaces {only}, and the event stream needs "
                f"{READ} in every one; docs/sites.md has the policies", code="nomad_token",
            )  # fmt: skip
        for namespace in seen:
            await self._may_read_in(namespace)

    async def _may_read_in(self, namespace: str) -> None:
        try:
            await self._http.get(f"/v1/job/{_NO_JOB}", {"namespace": namespace})
        except NotFound:
            return
        except Misconfigured as denied:
            raise Misconfigured(f"{denied.what}, in namespace {namespace}", code=denied.code) from denied

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(f"cluster {self._settings.name}: {why}", code="nomad_unavailable")


class _Rows:
    """All pages of one listing."""

    def __init__(self, rows: list[Row], index: int, known_leader: bool) -> None:
        self.rows = rows
        self.index = index
        self.known_leader = known_leader
