"""What a client serves: logs, files of an allocation, usage."""

import asyncio
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from . import logs as log_reading
from .api_reads import checked_id
from .drivers.process import ProcessHandle
from .entities import Alloc
from .jobspec import Row
from .logs import LogQuery
from .rows import thawed
from .web import Answer, HttpError, Request, Send, json_answer, text_answer

if TYPE_CHECKING:
    from .server import EmbeddedAgent

MAX_CAT = 64 * 1024 * 1024
TICKS = os.sysconf("SC_CLK_TCK")


def _alloc(agent: "EmbeddedAgent", alloc_id: str) -> Alloc:
    alloc = agent.region.state.allocs.get(checked_id(alloc_id, "alloc"))
    if alloc is None:
        raise HttpError(404, f'Unknown allocation "{alloc_id}"')
    return alloc


async def logs(agent: "EmbeddedAgent", request: Request, send: Send, alloc_id: str) -> Answer | None:
    """Stream a task's log; frames unless `plain`."""
    request.only("GET")
    query = _log_query(request)
    alloc = _alloc(agent, alloc_id)
    _check_started(alloc, query.task)
    kind = b"text/plain" if query.plain else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    gone = asyncio.create_task(request.gone(), name="logs-client")

    def over() -> bool:
        return gone.done() or agent.closing

    try:
        directory = agent.alloc_root / alloc_id / "alloc" / "logs"
        async for chunk in log_reading.read(directory, query, agent.settings.log_heartbeat_s, over):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if over():
            await gone  # the agent that stops cuts the connection: what is cut off must not look like a whole log
            return None
    finally:
        gone.cancel()
    await send({"type": "http.response.body", "body": b""})
    return None


def _log_query(request: Request) -> LogQuery:
    task, kind, origin = request.get("task"), request.get("type"), request.get("origin") or "start"
    if not task:
        raise HttpError(400, "must provide task name")
    if kind not in ("stdout", "stderr"):
        raise HttpError(400, "must provide log type (stdout/stderr)")
    text = request.get("offset")
    try:
        offset = int(text or 0)
    except ValueError:
        raise HttpError(400, f'error parsing offset: strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if origin not in ("start", "end"):
        raise HttpError(400, "origin must be start or end")
    return LogQuery(task, kind, origin, offset, request.flag("follow"), request.flag("plain"))


def _check_started(alloc: Alloc, task: str) -> None:
    states = thawed(alloc.row.get("TaskStates"))
    if not states and alloc.row["ClientStatus"] == "pending":
        raise HttpError(404, f'task "{task}" not started yet. No logs available')
    if not states or task not in states:
        raise HttpError(400, f'unknown task name "{task}"')
    if not states[task]["StartedAt"]:
        raise HttpError(404, f'task "{task}" not started yet. No logs available')


async def fs(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer | None:
    """`ls`, `stat`, `cat`, `readat` of a path in the allocation's directory."""
    request.only("GET")
    action, _, alloc_id = rest.partition("/")
    if action not in ("ls", "stat", "cat", "readat"):
        return Answer(404, b"", "")
    _alloc(agent, alloc_id)
    base = agent.alloc_root / alloc_id
    try:
        return await asyncio.to_thread(_fs, base, action, request)
    except HttpError as error:
        # Nomad has begun its 200 before it knows that a file cannot be read.
        return text_answer(200, error.text) if action == "cat" else text_answer(error.status, error.text)


def _fs(base: Path, action: str, request: Request) -> Answer:
    name = request.get("path")
    if action == "ls":
        return json_answer([_info(base, child) for child in _children(base, name)])
    if not name:
        raise HttpError(400, "must provide a file name")
    path = _inside(base, name)
    try:
        found = path.stat()
    except OSError as error:
        raise HttpError(404, f"stat {path}: {_words(error)}") from error
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        # Nomad waits for ever for the other end of a pipe. Here nothing may: it would hold a thread that others need.
        raise HttpError(500, f"open {path}: no plain file")
    if action == "stat":
        return json_answer({**_info(base, path), "ContentType": _content_type(path)})
    if stat.S_ISDIR(found.st_mode):
        raise HttpError(400, f'file "{name}" is a directory')
    return _contents(path, action, request)


def _children(base: Path, name: str) -> list[Path]:
    path = _inside(base, name or "/")
    try:
        return sorted(path.iterdir())
    except OSError as error:
        raise HttpError(404, f"open {path}: {_words(error)}") from error


def _contents(path: Path, action: str, request: Request) -> Answer:
    offset, limit = 0, MAX_CAT
    if action == "readat":
        try:
            offset, limit = int(request.get("offset") or 0), min(int(request.get("limit") or 0), MAX_CAT)
        except ValueError as error:
            raise HttpError(400, f"error parsing offset: {error}") from error
    try:
        with path.open("rb") as file:
            file.seek(max(offset, 0))
            body = file.read(max(limit, 0))
    except OSError as error:
        raise HttpError(500, f"open {path}: {_words(error)}") from error
    return Answer(200, body, _content_type(path), {"X-Content-Type-Options": "nosniff"})


def _inside(base: Path, name: str) -> Path:
    """A path under the allocation's directory, symbolic links followed; secrets and private are nobody's business."""
    path = (base / name.lstrip("/")).resolve()
    root = base.resolve()
    if not path.is_relative_to(root):
        raise HttpError(500, "Path escapes the alloc directory")
    parts = path.relative_to(root).parts
    if len(parts) > 1 and parts[1] in ("secrets", "private") and len(parts) > 2:
        raise HttpError(403, f"Reading secret file prohibited: {name}")
    return path


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _info(base: Path, path: Path) -> Row:
    found = path.lstat()
    when = datetime.fromtimestamp(found.st_mtime, UTC).isoformat().replace("+00:00", "Z")
    mode = stat.filemode(found.st_mode)
    return {"FileMode": mode, "IsDir": path.is_dir(), "ModTime": when, "Name": path.name, "Size": found.st_size}


def _content_type(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return "application/octet-stream"
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return "application/octet-stream"
    return "application/octet-stream" if b"\x00" in head else "text/plain; charset=utf-8"


async def alloc_stats(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """Usage of a running allocation's first processes; zeros for one that is over."""
    alloc_id, _, action = rest.partition("/")
    if action != "stats":
        return Answer(404, b"", "")
    request.only("GET")
    _alloc(agent, alloc_id)
    runner = agent.runner(alloc_id)
    handles = {name: task.handle for name, task in runner.tasks.items()} if runner else {}
    usage = {name: _usage(handle.pid) for name, handle in handles.items() if isinstance(handle, ProcessHandle)}
    now = time.time_ns() if usage else 0
    cpu = sum(row["CpuStats"]["TotalTicks"] for row in usage.values())
    rss = sum(row["MemoryStats"]["RSS"] for row in usage.values())
    tasks = {name: {"Pids": None, "ResourceUsage": row, "Timestamp": now} for name, row in usage.items()}
    return json_answer({"ResourceUsage": _usage_row(cpu, rss), "Tasks": tasks, "Timestamp": now})


def _usage(pid: int) -> Row:
    """CPU seconds used so far (TotalTicks) and resident memory, from /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _usage_row(0.0, 0)
    return _usage_row((int(fields[11]) + int(fields[12])) / TICKS, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))


def _usage_row(cpu: float, rss: int) -> Row:
    return {
        "CpuStats": {**_NO_CPU, "Measured": ["Total Ticks"], "TotalTicks": cpu},
        "DeviceStats": [],
        "MemoryStats": {**_NO_MEMORY, "Measured": ["RSS"], "RSS": rss, "Usage": rss},
    }


_NO_CPU: Row = {
    "Percent": 0.0, "SystemMode": 0.0, "ThrottledPeriods": 0, "ThrottledTime": 0, "TotalTicks": 0.0, "UserMode": 0.0,
}  # fmt: skip
_NO_MEMORY: Row = {
    "Cache": 0, "KernelMaxUsage": 0, "KernelUsage": 0, "MappedFile": 0, "MaxUsage": 0, "RSS": 0, "Swap": 0, "Usage": 0,
}  # fmt: skip


async def node_stats(agent: "EmbeddedAgent", request: Request, rest: str) -> Answer:
    """The node's memory and load as this agent promises them, not the whole machine's."""
    request.only("GET")
    node = next(iter(agent.region.state.nodes.values()))
    total = agent.settings.memory_mb * 1024 * 1024
    used = node.memory * 1024 * 1024
    memory = {"Available": total - used, "Free": total - used, "Total": total, "Used": used}
    return json_answer({"CPUTicksConsumed": float(node.cpu), "Memory": memory, "Timestamp": time.time_ns()})
