"""Carries injected faults out on an agent: one function per kind of `faults.KINDS`.

Called by `EmbeddedAgent.inject`, which flushes what was decided.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import collect, nodes
from .faults import KINDS

if TYPE_CHECKING:
    from .server import EmbeddedAgent

NO_LEADER = "No cluster leader"
TOO_MANY = "Your IP is issuing too many concurrent connections, please rate limit your calls\n"
Args = dict[str, Any]


def inject(agent: "EmbeddedAgent", kind: str, args: Args) -> None:
    """Make it happen. ValueError for an unknown kind, node or job."""
    if kind not in KINDS:
        raise ValueError(f"unknown fault {kind!r}; there are: {', '.join(KINDS)}")
    _ACTIONS[kind](agent, args)


def _seconds(args: Args) -> float | None:
    return float(args["seconds"]) if args.get("seconds") else None


def _drop_stream(agent: "EmbeddedAgent", args: Args) -> None:
    for stream in tuple(agent.streams):
        stream.close()


def _silence_stream(agent: "EmbeddedAgent", args: Args) -> None:
    for stream in tuple(agent.streams):
        stream.silence()


def _prune_buffer(agent: "EmbeddedAgent", args: Args) -> None:
    agent.broker.prune(int(args.get("keep", 0)))


def _refuse_connections(agent: "EmbeddedAgent", args: Args) -> None:
    agent.spawn(agent.refuse_connections(_seconds(args) or 10.0), "refuse-connections")


def _error_500(agent: "EmbeddedAgent", args: Args) -> None:
    agent.faults.fail(500, str(args.get("text", NO_LEADER)), args.get("count"), _seconds(args))


def _error_429(agent: "EmbeddedAgent", args: Args) -> None:
    agent.faults.fail(429, TOO_MANY, args.get("count"), _seconds(args))


def _slow(agent: "EmbeddedAgent", args: Args) -> None:
    agent.faults.slow(_seconds(args) or 1.0, args.get("duration"))


def _narrow_token(agent: "EmbeddedAgent", args: Args) -> None:
    agent.faults.narrow(_seconds(args), bool(args.get("deny")))
    _silence_stream(agent, args)


def _clear(agent: "EmbeddedAgent", args: Args) -> None:
    agent.faults.clear()


def _forget_job(agent: "EmbeddedAgent", args: Args) -> None:
    named, job = args.get("namespace"), str(args["job"])
    keys = [key for key in agent.region.state.jobs if key[1] == job and named in (None, key[0])]
    if not keys:
        raise ValueError(f"no job {job!r}" + (f" in namespace {named!r}" if named else ""))
    for key in keys:
        collect.forget(agent.region, key, agent.now())


def _gc(agent: "EmbeddedAgent", args: Args) -> None:
    collect.collect(agent.region, agent.now(), force=True)


def _drain(agent: "EmbeddedAgent", args: Args) -> None:
    deadline = int((_seconds(args) or 0) * 1e9) or -1
    nodes.drain(agent.region, _node(agent, args), deadline, False, agent.now())


def _undrain(agent: "EmbeddedAgent", args: Args) -> None:
    nodes.drain(agent.region, _node(agent, args), None, True, agent.now())


def _lose_node(agent: "EmbeddedAgent", args: Args) -> None:
    node_id, now = _node(agent, args), agent.now()
    agent.clients[node_id].leave()
    agent.region.away.add(node_id)
    after = args.get("after")
    wait = agent.settings.heartbeat_ttl_s + agent.settings.heartbeat_grace_s if after is None else float(after)
    agent.region.at(now + int(wait * 1e9), lambda at: nodes.missed(agent.region, node_id, at))
    agent.region.tick(now)


def _return_node(agent: "EmbeddedAgent", args: Args) -> None:
    node_id, now = _node(agent, args), agent.now()
    client = agent.clients[node_id]
    if client.away:
        nodes.returned(agent.region, node_id, agent.region.state.nodes[node_id].row, now)
        client.come_back()
        nodes.synced(agent.region, node_id, now)


def _node(agent: "EmbeddedAgent", args: Args) -> str:
    """A node by name or id; the first when none is named."""
    wanted = args.get("node")
    for node_id, node in agent.region.state.nodes.items():
        if node_id in agent.clients and wanted in (None, "", node_id, node.row["Name"]):
            return node_id
    raise ValueError(f"no node {wanted!r}")


_ACTIONS: dict[str, Callable[["EmbeddedAgent", Args], None]] = {
    "drop-stream": _drop_stream,
    "silence-stream": _silence_stream,
    "prune-buffer": _prune_buffer,
    "refuse-connections": _refuse_connections,
    "lose-node": _lose_node,
    "return-node": _return_node,
    "error-500": _error_500,
    "error-429": _error_429,
    "forget-job": _forget_job,
    "narrow-token": _narrow_token,
    "drain": _drain,
    "undrain": _undrain,
    "gc": _gc,
    "slow": _slow,
    "clear": _clear,
}
