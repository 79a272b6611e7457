"""One Nomad cluster as the two ports: `.engine` for the scheduler, `.watch` for the monitor."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from shared.adapters.nomad.control import NomadEngine
from shared.adapters.nomad.files import NomadFiles
from shared.adapters.nomad.http import NomadHttp
from shared.adapters.nomad.logs import NomadLogs
from shared.adapters.nomad.reading import NomadReader
from shared.adapters.nomad.settings import ClusterSettings
from shared.adapters.nomad.stream import EventStream
from shared.engine import AllocationSeen, Heartbeat, Line, Listing, LogChunk, Presence

HEALTH_S: Final = 3.0


class NomadWatch:
    """EngineWatch of one cluster: each promise is kept by the module that its method names."""

    def __init__(self, settings: ClusterSettings, http: NomadHttp, asking: NomadReader) -> None:
        self._asking = asking
        self._reader = NomadReader(settings, http)
        self._stream = EventStream(settings, http, self._reader)
        self._logs = NomadLogs(http)
        self._files = NomadFiles(http)

    def stream(self, index: int) -> AsyncIterator[Line | Heartbeat]:
        return self._stream.lines(index)

    async def namespaces(self) -> frozenset[str]:
        return await self._asking.namespaces()

    async def listing(self) -> Listing:
        return await self._reader.listing()

    async def presence(self, job_id: str, namespace: str) -> Presence:
        return await self._reader.presence(job_id, namespace)

    async def allocations(self, job_id: str, namespace: str) -> Sequence[AllocationSeen]:
        return await self._reader.allocations(job_id, namespace)

    async def job_meta(self, job_id: str, namespace: str) -> dict[str, str] | None:
        return await self._reader.job_meta(job_id, namespace)

    def logs(
        self, allocation: str, task: str, stream: str, *, offset: int = 0, from_end: bool = False, follow: bool = False
    ) -> AsyncIterator[LogChunk]:
        return self._logs.chunks(allocation, task, stream, offset=offset, from_end=from_end, follow=follow)

    async def file(self, allocation: str, path: str, limit: int) -> bytes:
        return await self._files.read(allocation, path, limit)

    async def ready(self) -> None:
        await self._asking.ready()


class NomadCluster:
    """Both ports, within the connections of the settings: a service that uses one of them holds half, as calls and the
    one for asking how the cluster is. Build it inside a running event loop's process; close it with `aclose`.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        self._http = NomadHttp(settings, settings.calls_at_a_time)
        self._asking = NomadHttp(settings, 1)
        asking = NomadReader(settings, self._asking)
        self.settings = settings
        self.engine = NomadEngine(settings, asking)
        self.watch = NomadWatch(settings, self._http, asking)

    async def healthy(self) -> bool:
        """Whether the agent at the address says that it is well, as Consul's check of it would ask. Raises as `get`."""
        await self._asking.get("/v1/agent/health", {"type": "server"}, timeout_s=HEALTH_S)
        return True

    async def aclose(self) -> None:
        """Close all connections; streams that are open end with Unavailable."""
        await self.engine.aclose()
        await self._http.aclose()
        await self._asking.aclose()
