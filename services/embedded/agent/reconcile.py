"""What should change for one job: which allocations stop, which are placed, what waits for later.

Pure: decides from one job, its allocations and the nodes they are on; `scheduler.py` carries it out. The rules are
Nomad's generic scheduler's as far as one attempt of the platform meets them: a finished batch name is not run again, a
failed one follows its reschedule policy, a lost one is replaced whatever the policy says, a drained batch one is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .entities import Alloc, Job, Node
from .jobspec import Row, lost_after
from .rows import is_client_terminal, is_terminal

NOT_NEEDED = "alloc not needed due to job update"
UPDATING = "alloc is being updated due to job update"
MIGRATING = "alloc is being migrated"
LOST = "alloc is lost since its node is down"
UNKNOWN = "alloc is unknown since its node is disconnected"


@dataclass(slots=True)
class Stop:
    """End an allocation, saying why; `client_status` when the server itself knows the end (lost)."""

    alloc: Alloc
    why: str
    client_status: str = ""


@dataclass(slots=True)
class Place:
    """A new allocation under a name, perhaps in place of another."""

    name: str
    group: Row
    previous: Alloc | None = None
    rescheduled: bool = False


@dataclass(slots=True)
class Later:
    """A follow-up evaluation to be made for an allocation, due at `at` (unix ns)."""

    alloc: Alloc
    at: int
    trigger: str
    why: str


@dataclass(slots=True)
class Desired:
    """The outcome of a reconciliation."""

    stops: list[Stop] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    later: list[Later] = field(default_factory=list)
    unknown: list[Alloc] = field(default_factory=list)
    reconnected: list[Alloc] = field(default_factory=list)
    updates: dict[str, dict[str, int]] = field(default_factory=dict)

    def count(self, group: str, what: str, number: int = 1) -> None:
        """Add to the annotations of a group."""
        row = self.updates.setdefault(group, {})
        row[what] = row.get(what, 0) + number


def reconcile(job: Job | None, allocs: list[Alloc], nodes: Mapping[str, Node], trigger: str, now: int) -> Desired:
    """All that should change, now and later."""
    desired = Desired()
    if job is None or job.row["Stop"]:
        _stop_all(allocs, nodes, desired)
        return desired
    groups = {group["Name"]: group for group in job.task_groups()}
    for alloc in allocs:
        if alloc.row["TaskGroup"] not in groups and not is_terminal(alloc.row):
            desired.stops.append(Stop(alloc, NOT_NEEDED))
    for group in groups.values():
        mine = [a for a in allocs if a.row["TaskGroup"] == group["Name"]]
        _Group(job, group, nodes, trigger, now, desired).reconcile(mine)
    return desired


def _stop_all(allocs: list[Alloc], nodes: Mapping[str, Node], desired: Desired) -> None:
    for alloc in allocs:
        if is_client_terminal(alloc.row):
            continue
        down = _node_status(alloc, nodes) == "down"
        if down:
            desired.stops.append(Stop(alloc, LOST, "lost"))
        elif alloc.row["DesiredStatus"] == "run":
            desired.stops.append(Stop(alloc, NOT_NEEDED))
        desired.count(alloc.row["TaskGroup"], "Stop")


def _node_status(alloc: Alloc, nodes: Mapping[str, Node]) -> str:
    node = nodes.get(alloc.row["NodeID"])
    return str(node.row["Status"]) if node else "down"


class _Group:
    """One task group: sorts its allocations by name and fate."""

    def __init__(
        self, job: Job, group: Row, nodes: Mapping[str, Node], trigger: str, now: int, desired: Desired
    ) -> None:
        self.job, self.group, self.nodes = job, group, nodes
        self.trigger, self.now, self.desired = trigger, now, desired
        self.batch = job.row["Type"] in ("batch", "sysbatch")
        self.name = group["Name"]
        self.taken: set[str] = set()
        """Names that need no new allocation."""
        self.replace: dict[str, Place] = {}

    def reconcile(self, allocs: list[Alloc]) -> None:
        """Decide each allocation, then fill the names that are left."""
        for alloc in allocs:
            self._decide(alloc)
        names = [f"{self.job.row['ID']}.{self.name}[{i}]" for i in range(self.group["Count"])]
        self._stop_surplus(allocs, set(names))
        for name in names:
            if name in self.taken:
                continue
            self.desired.places.append(self.replace.get(name) or Place(name, self.group))
            self.desired.count(self.name, "Place")
        self.desired.updates.setdefault(self.name, {})

    def _decide(self, alloc: Alloc) -> None:
        row = alloc.row
        if is_client_terminal(row) or row["DesiredStatus"] != "run":
            self._decide_finished(alloc)
            return
        status = _node_status(alloc, self.nodes)
        if status == "down":
            self._lost(alloc)
        elif status == "disconnected":
            self._disconnected(alloc)
        elif (row.get("DesiredTransition") or {}).get("Migrate"):
            self._migrate(alloc)
        elif row["ClientStatus"] == "unknown":
            self._keep(alloc)
        elif alloc.version != self.job.row["Version"] and not self._same_work(alloc):
            self._stop(alloc, UPDATING)
            self.desired.count(self.name, "DestructiveUpdate")
        else:
            self._keep(alloc)

    def _same_work(self, alloc: Alloc) -> bool:
        """An older version of the same groups and meta: nothing to restart (a changed count, say)."""
        old = next((v for v in self.job.versions if v["Version"] == alloc.version), None)
        return (
            old is not None
            and old["Meta"] == self.job.row["Meta"]
            and _without_count(old, self.name) == _bare(self.group)
        )

    def _keep(self, alloc: Alloc) -> None:
        self.taken.add(alloc.row["Name"])
        self.desired.count(self.name, "Ignore")
        if self.trigger == "reconnect" and alloc.row["ClientStatus"] == "running" and alloc.row.get("FollowupEvalID"):
            self.desired.reconnected.append(alloc)

    def _stop(self, alloc: Alloc, why: str, client_status: str = "") -> None:
        self.desired.stops.append(Stop(alloc, why, client_status))
        self.replace[alloc.row["Name"]] = Place(alloc.row["Name"], self.group, alloc)

    def _decide_finished(self, alloc: Alloc) -> None:
        row = alloc.row
        if row.get("NextAllocation"):
            return
        wanted = row["DesiredStatus"] == "run"
        if not wanted and not is_client_terminal(row) and _node_status(alloc, self.nodes) == "down":
            self.desired.stops.append(Stop(alloc, LOST, "lost"))
        drained_batch = bool((row.get("DesiredTransition") or {}).get("MigrateDisablePlacement"))
        if not wanted:
            if drained_batch and alloc.version == self.job.row["Version"]:
                self.taken.add(row["Name"])
            return
        if self.batch and alloc.version != self.job.row["Version"]:
            return
        if row["ClientStatus"] == "complete" and self.batch:
            self.taken.add(row["Name"])
        elif row["ClientStatus"] == "failed":
            self._reschedule(alloc)

    def _reschedule(self, alloc: Alloc) -> None:
        """A failed allocation: replaced now, later, or never."""
        self.taken.add(alloc.row["Name"])
        at = reschedule_at(alloc.row, self.group, self.now)
        if at is None:
            self.desired.count(self.name, "Ignore")
        elif at <= self.now or (self.trigger == "alloc-reschedule" and alloc.row.get("FollowupEvalID")):
            self.taken.discard(alloc.row["Name"])
            self.desired.stops.append(Stop(alloc, ""))
            self.replace[alloc.row["Name"]] = Place(alloc.row["Name"], self.group, alloc, rescheduled=True)
            self.desired.count(self.name, "RescheduleNow")
        elif not alloc.row.get("FollowupEvalID"):
            self.desired.later.append(Later(alloc, at, "alloc-reschedule", "created for delayed rescheduling"))
            self.desired.count(self.name, "RescheduleLater")

    def _lost(self, alloc: Alloc) -> None:
        if (
            (self.group["Disconnect"] or {}).get("Replace") is False
            and not lost_after(self.group)
            and alloc.row["ClientStatus"] != "unknown"
        ):
            # Nomad takes a replace=false without lost_after for a disconnect that expires at once.
            self._disconnected(alloc)
            return
        self._stop(alloc, LOST, "lost")
        self.desired.count(self.name, "Stop")

    def _disconnected(self, alloc: Alloc) -> None:
        if alloc.row["ClientStatus"] == "unknown":
            if self.now >= _unknown_since(alloc.row) + lost_after(self.group):
                self._stop(alloc, LOST, "lost")
                self.desired.count(self.name, "Stop")
            else:
                self.taken.add(alloc.row["Name"])
                self.desired.count(self.name, "Ignore")
            return
        grace = lost_after(self.group)
        if not grace and (self.group["Disconnect"] or {}).get("Replace") is not False:
            self._stop(alloc, LOST, "lost")
            return
        self.taken.add(alloc.row["Name"])
        self.desired.unknown.append(alloc)
        self.desired.count(self.name, "Disconnect")
        self.desired.later.append(
            Later(alloc, self.now + grace, "max-disconnect-timeout", "created for delayed disconnect timeout")
        )
        policy = self.group["ReschedulePolicy"] or {}
        if self.group["Disconnect"]["Replace"] and (policy.get("Unlimited") or policy.get("Attempts")):
            # Seen in Nomad: this evaluation comes, and places nothing.
            self.desired.later.append(
                Later(alloc, self.now + policy["Delay"], "alloc-reschedule", "created for delayed rescheduling")
            )

    def _migrate(self, alloc: Alloc) -> None:
        self.desired.stops.append(Stop(alloc, MIGRATING))
        self.desired.count(self.name, "Migrate")
        if alloc.row["DesiredTransition"].get("MigrateDisablePlacement"):
            self.taken.add(alloc.row["Name"])
        else:
            self.replace[alloc.row["Name"]] = Place(alloc.row["Name"], self.group, alloc)

    def _stop_surplus(self, allocs: list[Alloc], names: set[str]) -> None:
        stopping = {stop.alloc.row["ID"] for stop in self.desired.stops}
        for alloc in allocs:
            if alloc.row["Name"] not in names and not is_terminal(alloc.row) and alloc.row["ID"] not in stopping:
                self.desired.stops.append(Stop(alloc, NOT_NEEDED))
                self.desired.count(self.name, "Stop")


def _bare(group: Row) -> Row:
    return {k: v for k, v in group.items() if k != "Count"}


def _without_count(version: Row, name: str) -> Row | None:
    groups = Job(version).task_groups()
    return next((_bare(group) for group in groups if group["Name"] == name), None)


def _unknown_since(alloc: Row) -> int:
    states = alloc.get("AllocStates") or []
    return int(states[-1]["At"]) if states else 0


def reschedule_at(alloc: Row, group: Row, now: int) -> int | None:
    """When a failed allocation may be replaced (unix ns), or None for never. Nomad's reschedule policy."""
    policy = group["ReschedulePolicy"]
    if not policy or (not policy["Unlimited"] and not policy["Attempts"]):
        return None
    tracker = (alloc.get("RescheduleTracker") or {}).get("Events") or []
    if not policy["Unlimited"]:
        recent = [e for e in tracker if now - e["RescheduleTime"] < policy["Interval"]]
        if len(recent) >= policy["Attempts"]:
            return None
    return int(alloc["ModifyTime"]) + reschedule_delay(policy, len(tracker))


def reschedule_delay(policy: Row, done: int) -> int:
    """Constant, exponential or Fibonacci, capped."""
    delay = int(policy["Delay"])
    if policy["DelayFunction"] == "exponential":
        delay <<= min(done, 20)
    elif policy["DelayFunction"] == "fibonacci":
        before = 0
        for _ in range(min(done, 40)):
            before, delay = delay, before + delay
    return min(delay, policy["MaxDelay"]) if policy["MaxDelay"] else delay
