"""Where a task group fits: feasibility, bin packing, and Nomad's metrics that say why not.

Pure. Called by the scheduler for placements and by plan for dry runs.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .entities import Ask, Node
from .jobspec import Row
from .settings import version_tuple


@dataclass(slots=True)
class Metrics:
    """Nomad's AllocMetric, as far as it is ever filled here."""

    pool: str = "default"
    evaluated: int = 0
    filtered: int = 0
    exhausted: int = 0
    in_pool: int = 0
    available: dict[str, int] = field(default_factory=dict)
    constraint_filtered: dict[str, int] = field(default_factory=dict)
    dimension_exhausted: dict[str, int] = field(default_factory=dict)
    resources_exhausted: dict[str, Row] | None = None
    coalesced: int = 0
    scores: list[tuple[str, float]] = field(default_factory=list)

    def filter(self, reason: str) -> None:
        """A node is not suitable."""
        self.filtered += 1
        self.constraint_filtered[reason] = self.constraint_filtered.get(reason, 0) + 1

    def exhaust(self, dimension: str) -> None:
        """A node is suitable but full."""
        self.exhausted += 1
        self.dimension_exhausted[dimension] = self.dimension_exhausted.get(dimension, 0) + 1

    def row(self) -> Row:
        """The JSON form; empty maps are null, except NodesAvailable."""
        return {
            "AllocationTime": 50_000,
            "ClassExhausted": None,
            "ClassFiltered": None,
            "CoalescedFailures": self.coalesced,
            "ConstraintFiltered": self.constraint_filtered or None,
            "DimensionExhausted": self.dimension_exhausted or None,
            "NodePool": self.pool,
            "NodesAvailable": self.available,
            "NodesEvaluated": self.evaluated,
            "NodesExhausted": self.exhausted,
            "NodesFiltered": self.filtered,
            "NodesInPool": self.in_pool,
            "QuotaExhausted": None,
            "ResourcesExhausted": self.resources_exhausted,
            "ScoreMetaData": [_score_row(node, score) for node, score in self.scores] or None,
            "Scores": None,
        }


@dataclass(frozen=True, slots=True)
class PortPolicy:
    """Where dynamic ports come from: a range, where to start in it, and whether a number is free on this host."""

    low: int = 20_000
    high: int = 31_999
    start: int = 0
    is_free: Callable[[int], bool] = lambda port: True


@dataclass(slots=True)
class Choice:
    """A node for the group, and what it takes there."""

    node: Node
    ask: Ask
    ports: list[Row]


def _score_row(node_id: str, score: float) -> Row:
    parts = {"binpack": score, "job-anti-affinity": 0.0, "node-affinity": 0.0, "node-reschedule-penalty": 0.0}
    return {"NodeID": node_id, "NormScore": score, "Scores": parts}


def group_ask(group: Row) -> Ask:
    """Sum of the tasks' resources; devices by the name asked for. Ports are chosen per node."""
    cpu = memory = 0
    devices: dict[str, int] = {}
    for task in group["Tasks"]:
        cpu += task["Resources"]["CPU"]
        memory += task["Resources"]["MemoryMB"]
        for device in task["Resources"]["Devices"] or []:
            devices[device["Name"]] = devices.get(device["Name"], 0) + (device.get("Count") or 1)
    return Ask(cpu, memory, group["EphemeralDisk"]["SizeMB"], (), devices)


def select(job: Row, group: Row, nodes: Iterable[Node], policy: PortPolicy) -> tuple[Choice | None, Metrics]:
    """The best node for one allocation of `group`, and the metrics of the search."""
    metrics = Metrics(pool=job["NodePool"])
    best: tuple[float, Choice] | None = None
    for node in nodes:
        if not _in_reach(job, node, metrics) or not _suitable(job, group, node, metrics):
            continue
        choice = _fit(group, node, policy, metrics)
        if choice is None:
            continue
        score = binpack_score(node, choice.ask)
        metrics.scores.append((node.row["ID"], score))
        if best is None or score > best[0]:
            best = (score, choice)
    return (best[1] if best else None), metrics


def _in_reach(job: Row, node: Node, metrics: Metrics) -> bool:
    """Ready, eligible, in the job's pool and datacenters; others do not even count as evaluated."""
    row = node.row
    if row["Status"] != "ready" or row["SchedulingEligibility"] != "eligible":
        return False
    if job["NodePool"] not in ("all", row["NodePool"]) or not matches_datacenter(job["Datacenters"], row["Datacenter"]):
        return False
    metrics.in_pool += 1
    metrics.available[row["Datacenter"]] = metrics.available.get(row["Datacenter"], 0) + 1
    metrics.evaluated += 1
    return True


def matches_datacenter(wanted: list[str], name: str) -> bool:
    """Nomad allows `*` in datacenter names."""
    return any(re.fullmatch(re.escape(d).replace(r"\*", ".*"), name) for d in wanted)


def _suitable(job: Row, group: Row, node: Node, metrics: Metrics) -> bool:
    """Job constraints, then drivers, then the group's and tasks' constraints, then device kinds, in Nomad's order."""
    for constraint in job["Constraints"] or []:
        if not constraint_holds(constraint, node.row):
            metrics.filter(constraint_text(constraint))
            return False
    if any(not has_driver(node.row, task["Driver"]) for task in group["Tasks"]):
        metrics.filter("missing drivers")
        return False
    own = [*(group["Constraints"] or []), *(c for task in group["Tasks"] for c in task["Constraints"] or [])]
    for constraint in own:
        if not constraint_holds(constraint, node.row):
            metrics.filter(constraint_text(constraint))
            return False
    if any(not matching_devices(node.row, name) for name in group_ask(group).devices):
        metrics.filter("missing devices")
        return False
    return True


def has_driver(node: Row, driver: str) -> bool:
    """Detected and healthy."""
    return bool((node["Drivers"].get(driver) or {}).get("Healthy"))


def matching_devices(node: Row, name: str) -> list[Row]:
    """Device groups of the node that a request names: `gpu`, `nvidia/gpu` or `nvidia/gpu/A100`."""
    found = []
    for device in node["NodeResources"]["Devices"] or []:
        full = (device["Vendor"], device["Type"], device["Name"])
        if name in (device["Type"], "/".join(full[:2]), "/".join(full)):
            found.append(device)
    return found


def _fit(group: Row, node: Node, policy: PortPolicy, metrics: Metrics) -> Choice | None:
    ask = group_ask(group)
    ports = _assign_ports(group, node, policy)
    if isinstance(ports, str):
        metrics.exhaust(ports)
        metrics.resources_exhausted = {t["Name"]: _exhausted_row(t, "ports") for t in group["Tasks"]}
        return None
    ask.ports = tuple(port["Value"] for port in ports)
    devices = _assign_devices(ask.devices, node)
    if devices is None:
        metrics.exhaust("devices: no devices match request")
        return None
    ask.devices = devices
    if dimension := _exhausted(ask, node):
        metrics.exhaust(dimension)
        metrics.resources_exhausted = {t["Name"]: _exhausted_row(t, dimension) for t in group["Tasks"]}
        return None
    return Choice(node, ask, ports)


def _exhausted(ask: Ask, node: Node) -> str:
    have = node.row["NodeResources"]
    if node.cpu + ask.cpu > have["Cpu"]["CpuShares"]:
        return "cpu"
    if node.memory + ask.memory > have["Memory"]["MemoryMB"]:
        return "memory"
    if node.disk + ask.disk > have["Disk"]["DiskMB"]:
        return "disk"
    return ""


def _exhausted_row(task: Row, dimension: str) -> Row:
    """The task's own ask in the exhausted dimension; zeros beside it."""
    wanted = task["Resources"]
    row = {
        **wanted,
        "CPU": 0,
        "MemoryMB": 0,
        "MemoryMaxMB": 0,
        "DiskMB": 0,
        "Cores": 0,
        "Devices": None,
        "Networks": None,
    }
    name = {"cpu": "CPU", "memory": "MemoryMB"}.get(dimension)
    return {**row, name: wanted[name]} if name else row


def _assign_devices(asked: dict[str, int], node: Node) -> dict[str, int] | None:
    """Counts per full device name, or None when too few are free."""
    taken: dict[str, int] = {}
    for name, count in asked.items():
        for device in matching_devices(node.row, name):
            full = f"{device['Vendor']}/{device['Type']}/{device['Name']}"
            free = len(device["Instances"]) - node.devices.get(full, 0) - taken.get(full, 0)
            if free >= count:
                taken[full] = taken.get(full, 0) + count
                break
        else:
            return None
    return taken


def _assign_ports(group: Row, node: Node, policy: PortPolicy) -> list[Row] | str:
    """The group's ports with their numbers, or the dimension that is exhausted."""
    ports: list[Row] = []
    used = set(node.ports)
    for network in group["Networks"] or []:
        for port in network.get("ReservedPorts") or []:
            if port["Value"] in used:
                return f"network: reserved port collision {port['Label']}={port['Value']}"
            used.add(port["Value"])
            ports.append({"Label": port["Label"], "Value": port["Value"], "To": port.get("To") or 0})
        for port in network.get("DynamicPorts") or []:
            value = _free_port(used, policy)
            if value is None:
                return "network: dynamic port selection failed"
            used.add(value)
            to = port.get("To") or 0
            ports.append({"Label": port["Label"], "Value": value, "To": value if to == -1 else to})
    return ports


def _free_port(used: set[int], policy: PortPolicy) -> int | None:
    """Starting at a moving place keeps a port just freed from being handed out again at once."""
    size = policy.high - policy.low + 1
    for step in range(size):
        value = policy.low + (policy.start + step) % size
        if value not in used and policy.is_free(value):
            return value
    return None


def binpack_score(node: Node, ask: Ask) -> float:
    """Nomad's bin packing score (Google's BestFit v3), 0 to 1."""
    have = node.row["NodeResources"]
    free_cpu = 1 - (node.cpu + ask.cpu) / max(have["Cpu"]["CpuShares"], 1)
    free_memory = 1 - (node.memory + ask.memory) / max(have["Memory"]["MemoryMB"], 1)
    return float(min(max(20 - (10**free_cpu + 10**free_memory), 0.0), 18.0) / 18)


def constraint_text(constraint: Row) -> str:
    """As Nomad names it in ConstraintFiltered."""
    return f"{constraint['LTarget']} {constraint['Operand']} {constraint['RTarget']}"


def constraint_holds(constraint: Row, node: Row) -> bool:
    """Whether a node meets a constraint. `distinct_*` always hold here: they compare nodes, of which sites have one."""
    operand = constraint["Operand"]
    if operand in ("distinct_hosts", "distinct_property"):
        return True
    left, right = resolve(constraint["LTarget"], node), resolve(constraint["RTarget"], node)
    if operand in ("is_set", "attribute_is_set"):
        return left is not None
    if operand in ("is_not_set", "attribute_is_not_set"):
        return left is None
    if operand in ("!=", "not"):
        return left != right
    if left is None or right is None:
        return False
    return _compare(operand, left, right)


def _compare(operand: str, left: str, right: str) -> bool:
    if operand in ("=", "==", "is"):
        return left == right
    if operand == "regexp":
        return re.search(right, left) is not None
    if operand in ("version", "semver"):
        return all(_version_holds(left, part.strip()) for part in right.split(","))
    if operand in ("set_contains", "set_contains_all"):
        return _parts(right) <= _parts(left)
    if operand == "set_contains_any":
        return bool(_parts(right) & _parts(left))
    return _ordered(operand, left, right)


def _ordered(operand: str, left: str, right: str) -> bool:
    """Numbers compare as numbers, everything else as text."""
    try:
        sign = (float(left) > float(right)) - (float(left) < float(right))
    except ValueError:
        sign = (left > right) - (left < right)
    return {"<": sign < 0, "<=": sign <= 0, ">": sign > 0, ">=": sign >= 0}[operand]


def _parts(text: str) -> set[str]:
    return {part.strip() for part in text.split(",")}


def _version_holds(have: str, wanted: str) -> bool:
    found = re.fullmatch(r"(>=|<=|!=|~>|=|>|<)?\s*v?([\w.+-]+)", wanted)
    if not found:
        return False
    operator, text = found.group(1) or "=", found.group(2)
    left, right = version_tuple(have.lstrip("v")), version_tuple(text)
    if operator == "~>":
        return left >= right and left[: max(len(right) - 1, 1)] == right[: max(len(right) - 1, 1)]
    width = max(len(left), len(right))
    one, two = left + (0,) * (width - len(left)), right + (0,) * (width - len(right))
    return {">=": one >= two, "<=": one <= two, "!=": one != two, "=": one == two, ">": one > two, "<": one < two}[
        operator
    ]


def resolve(target: str, node: Row) -> str | None:
    """A constraint's side: a literal, or `${attr.x}`, `${meta.x}`, `${node.x}` of the node; None when absent."""
    if not target.startswith("${"):
        return target
    name = target[2:-1]
    for prefix, table in (("attr.", "Attributes"), ("meta.", "Meta")):
        if name.startswith(prefix):
            found = node[table].get(name.removeprefix(prefix))
            return None if found is None else str(found)
    return node_variable(name, node)


def node_variable(name: str, node: Row) -> str | None:
    """`node.unique.id`, `node.datacenter`, ...: the node's own names."""
    fields = {
        "node.unique.id": "ID",
        "node.unique.name": "Name",
        "node.datacenter": "Datacenter",
        "node.class": "NodeClass",
        "node.pool": "NodePool",
    }
    return str(node[fields[name]]) if name in fields else None
