"""The embedded agent: one region with its clients, journal, clock and HTTP server, inside somebody else's loop.

`services/embedded` builds one for each site; tests build them too. Nothing is told to anybody (stream, client, caller)
before it is in the journal.
"""

import asyncio
import ipaddress
import logging
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from . import allocdir, api_namespaces, fingerprint, injection, nodes, updates
from .allocrunner import AllocRunner
from .api import Api
from .broker import Broker
from .client import NodeClient
from .disk import Journal
from .drivers.base import Driver
from .drivers.mock import MockDriver
from .drivers.process import ProcessDriver
from .faults import Faults
from .keyring import Keyring
from .region import Region
from .rows import Line
from .settings import AgentSettings
from .state import State
from .stream import Stream
from .transaction import Commit
from .updates import Update
from .web import Request
from .workload import Region as Workloads

log = logging.getLogger(__name__)


class AgentError(Exception):
    """The agent cannot start; the text says why."""


class EmbeddedAgent:
    """A Nomad-compatible agent on loopback."""

    def __init__(self, settings: AgentSettings) -> None:
        if not _is_loopback(settings.host):
            raise AgentError(f"embedded agent {settings.name}: {settings.host} is not a loopback address")
        self.settings = settings
        self.address = f"http://{settings.host}:{settings.port}"
        self.broker = Broker(settings.event_buffer_size)
        self.faults = Faults()
        self.streams: set[Stream] = set()
        self.closing = False
        self.alloc_root = settings.data_dir / "alloc"
        self.region = Region(settings, State(tells_deletions=settings.tells_deletions), new_id, self._is_port_free)
        self.clients: dict[str, NodeClient] = {}
        self.keyring: Keyring
        self._process_driver = ProcessDriver(settings.data_dir / "run")
        self._journal = Journal(
            settings.data_dir / "state",
            fsync=settings.fsync,
            snapshot_bytes=settings.snapshot_bytes,
            on_failure=self._journal_failed,
        )
        self._waiters: set[asyncio.Future[None]] = set()
        self._unwritten: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._http_state = ServerState()
        self._config = uvicorn.Config(
            Api(self), http="httptools", ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False,
            date_header=False, timeout_keep_alive=75,
        )  # fmt: skip
        self._tasks: set[asyncio.Task[None]] = set()

    # -- start and stop ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the journal, bind the port, take up what ran. AgentError when the port is taken."""
        listener = self._bind(self.settings.port)
        self.address = f"http://{self.settings.host}:{listener.getsockname()[1]}"
        try:
            lines = await asyncio.to_thread(self._load)
        except BaseException:  # cancelled, too: the port must not stay taken
            listener.close()
            raise
        for line in lines:
            self.broker.publish(line)
        self._start_nodes()
        await self.durable()
        self._config.load()
        await self._listen(listener)
        self.spawn(self._rotate_logs(), "rotate-logs")

    async def _rotate_logs(self) -> None:
        """Only allocations with real processes have logs that grow."""
        while True:
            await asyncio.sleep(self.settings.log_check_s)
            for runner in [r for c in self.clients.values() for r in c.runners.values() if r.has_processes]:
                await asyncio.to_thread(runner.rotate_logs)

    def _load(self) -> deque[Line]:
        self.settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.region.namespaces |= api_namespaces.kept(self.settings.data_dir)
        self.keyring = Keyring(self.settings.data_dir / "keystore")
        lines: deque[Line] = deque(maxlen=self.settings.event_buffer_size + 1)
        for record in self._journal.load():
            if (line := self.region.state.load(record)) is not None:
                lines.append(line)
        self.region.state.capacity_freed = False
        return lines

    def _start_nodes(self) -> None:
        """Clients present themselves; after a restart they take up their allocations."""
        now = self.now()
        known = {node.row["Name"]: node.row["ID"] for node in self.region.state.nodes.values()}
        self.region.resume(now)
        workloads = Workloads(self.settings.region, self.issuer, self.region.state, self.keyring)
        for settings in self.settings.of_each_node():
            name = settings.node_name
            node_id = known.get(name) or new_id()
            row = fingerprint.node_row(settings, node_id, name, self.address.removeprefix("http://"))
            self.clients[node_id] = NodeClient(
                node_id, self.region.state, self.settings, self._drivers(), self.alloc_root, workloads, self._report,
                self._after_written,
            )  # fmt: skip
            if name in known and self.region.state.nodes[node_id].row["Status"] != "ready":
                nodes.returned(self.region, node_id, row, now)
            else:
                nodes.register(self.region, row, now)
        for node_id, client in self.clients.items():
            client.resume()
            nodes.synced(self.region, node_id, now)
        self._flush()

    def _drivers(self) -> dict[str, Driver]:
        found: dict[str, Driver] = {}
        for name in self.settings.drivers:
            found[name] = MockDriver() if name == "mock_driver" else self._process_driver
        return found

    def _bind(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
        # The protocol must be named: asyncio turns Nagle's algorithm off (40 ms an answer) only where it reads TCP.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.settings.host, port))
            listener.listen(512)  # at once: two sockets that are only bound may share a port
        except OSError as error:
            listener.close()
            raise AgentError(
                f"embedded agent {self.settings.name}: port {port} of {self.settings.host} is taken ({error.strerror})"
            ) from error
        return listener

    async def _listen(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> HttpToolsProtocol:
            return HttpToolsProtocol(config=self._config, server_state=self._http_state, app_state={})

        self._server = await loop.create_server(protocol, sock=listener, backlog=512)

    async def stop(self, *, end_tasks: bool | None = None) -> None:
        """Stop serving and watching. Tasks go on or are ended, None = as the settings say. Twice is once."""
        if self.closing:
            return
        self.closing = True
        self._stop_listening()
        for stream in tuple(self.streams):
            stream.close()
        ending = self.settings.end_tasks_at_stop if end_tasks is None else end_tasks
        await asyncio.gather(*(client.close(end_tasks=ending) for client in self.clients.values()))
        self._flush()
        await self._journal.close()
        await self._process_driver.close()
        await self._end_requests()
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _end_requests(self) -> None:
        """Streams and waits end by themselves; followed logs are cut off, and notice it; what is left is cancelled."""
        for waiter in tuple(self._waiters):
            if not waiter.done():
                waiter.set_result(None)
        if self._http_state.tasks:
            await asyncio.wait(tuple(self._http_state.tasks), timeout=0.1)
        self._cut_connections()
        if self._http_state.tasks:
            await asyncio.wait(tuple(self._http_state.tasks), timeout=0.5)
        for task in tuple(self._http_state.tasks):
            task.cancel()

    def _cut_connections(self) -> None:
        for connection in tuple(self._http_state.connections):
            if (transport := getattr(connection, "transport", None)) is not None:
                transport.abort()

    # -- what everybody asks -------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Unix nanoseconds."""
        return time.time_ns()

    async def durable(self) -> None:
        """Until all that was decided so far is on disk and told."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unwritten.add(done)
        try:
            self._flush()
            self._journal.append((), lambda: None if done.done() else done.set_result(None))
            await done
        finally:
            self._unwritten.discard(done)

    def _journal_failed(self, error: OSError) -> None:
        """What is not written must not be told: like a server whose disk is gone, the agent falls silent."""
        log.critical(
            "embedded agent %s: its journal cannot be written, it stops serving: %s", self.settings.name, error
        )
        self._stop_listening()
        for done in self._unwritten:
            if not done.done():
                done.set_exception(AgentError(f"journal of {self.settings.name} cannot be written: {error}"))
        self._cut_connections()

    async def idle(self) -> None:
        """Until everything decided is told and what was collected is off the disk."""
        await self.durable()
        while removing := [task for task in self._tasks if task.get_name() == "remove-alloc-dirs"]:
            await asyncio.gather(*removing, return_exceptions=True)

    @property
    def issuer(self) -> str:
        """What its identities have as `iss`."""
        return self.address if self.settings.oidc_issuer is None else self.settings.oidc_issuer

    async def block(self, request: Request, index: Callable[[], int]) -> None:
        """A blocking query: wait until `index()` has passed the request's, or its wait time is over."""
        wanted = request.index()
        left = request.wait_s()
        if wanted <= 0:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + left
        while index() <= wanted and loop.time() < deadline and not self.closing:
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.add(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                return
            finally:
                self._waiters.discard(waiter)

    def runner(self, alloc_id: str) -> AllocRunner | None:
        """The runner of a live allocation."""
        return next((c.runners[alloc_id] for c in self.clients.values() if alloc_id in c.runners), None)

    # -- decisions to disk, then to the world --------------------------------------------------------------------------

    def _flush(self) -> None:
        """Journal what was committed, tell it afterwards, and set the clock for what is due next."""
        commits = self.region.state.take_commits()
        if self._journal.failed is not None:
            return
        if commits:
            self._journal.append([c.record for c in commits], lambda: self._tell(commits))
        if self._journal.wants_snapshot:
            self._journal.fold(list(self.region.state.snapshot_ops()), self.region.state.index)
        self._arm()

    def _tell(self, commits: list[Commit]) -> None:
        for commit in commits:
            if commit.line is not None:
                self.broker.publish(commit.line)
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        changed = dict.fromkeys(alloc_id for commit in commits for alloc_id in commit.allocs)
        gone = [alloc_id for alloc_id in changed if not self._tell_client(alloc_id)]
        if gone:
            self.spawn(asyncio.to_thread(self._remove_dirs, gone), "remove-alloc-dirs")

    def _tell_client(self, alloc_id: str) -> bool:
        """Tell the client of a changed allocation; False when nobody runs it and its row is gone."""
        alloc = self.region.state.allocs.get(alloc_id)
        if alloc is not None:
            if client := self.clients.get(alloc.row["NodeID"]):
                client.server_changed(alloc_id)
            return True
        running = [client for client in self.clients.values() if alloc_id in client.runners]
        for client in running:
            client.server_changed(alloc_id)
        return bool(running)

    def _remove_dirs(self, alloc_ids: list[str]) -> None:
        for alloc_id in alloc_ids:
            allocdir.remove(self.alloc_root / alloc_id)

    def _report(self, node_id: str, reported: list[Update]) -> None:
        """A client's batch."""
        updates.apply(self.region, node_id, reported, self.now())
        self._flush()

    def _after_written(self, then: Callable[[], None]) -> None:
        """Call back once everything decided so far is in the journal; never when that cannot be written."""
        self._flush()
        if self._journal.failed is None:
            self._journal.append((), then)

    def _arm(self) -> None:
        due = self.region.next_due()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None and not self.closing:
            delay = max((due - self.now()) / 1e9, 0)
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.region.tick(self.now())
        self._flush()

    def _is_port_free(self, port: int) -> bool:
        """Whether nobody else on this machine has the port."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.settings.host, port))
            except OSError:
                return False
        return True

    # -- faults --------------------------------------------------------------------------------------------------------

    async def inject(self, kind: str, **args: Any) -> None:
        """Make something go wrong (`faults.KINDS`). ValueError for an unknown kind, node or job."""
        injection.inject(self, kind, args)
        self._flush()

    async def refuse_connections(self, seconds: float) -> None:
        """Nothing listens for a while; the same port afterwards."""
        port = int(self.address.rpartition(":")[2])
        # Let the answer to the call that asked for this out first.
        await asyncio.sleep(0.02)
        self._stop_listening()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            self._cut_connections()  # again and again: some were just being accepted
            await asyncio.sleep(min(left, 0.05))
        await self._listen(self._bind(port))

    def spawn(self, work: Any, name: str) -> None:
        """Run background work under a name; its failure is logged, and it ends with the agent."""
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("embedded agent %s: %s failed: %r", self.settings.name, task.get_name(), error)


def new_id() -> str:
    """A fresh UUID."""
    return str(uuid.uuid4())


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
