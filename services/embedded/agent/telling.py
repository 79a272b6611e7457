"""Changed rows as events of the stream: topic, key, namespace and payload as Nomad tells them."""

from .jobspec import Row
from .rows import Event


def job_event(row: Row, kind: str, index: int, *, deleted: bool = False) -> Event:
    """Topic Job. `Deleted` is there only when true."""
    payload = {"Job": row, "Deleted": True} if deleted else {"Job": row}
    return Event("Job", kind, row["ID"], row["Namespace"], None, payload, index)


def eval_event(row: Row, kind: str, index: int) -> Event:
    """Topic Evaluation."""
    keys = (row["JobID"], row.get("DeploymentID", ""))
    return Event("Evaluation", kind, row["ID"], row["Namespace"], keys, {"Evaluation": row}, index)


def alloc_event(row: Row, kind: str, index: int, more: Row | None = None) -> Event:
    """Topic Allocation; `more` are the keys beside the allocation (Timeout)."""
    keys = (row["JobID"], row.get("DeploymentID", ""))
    return Event("Allocation", kind, row["ID"], row["Namespace"], keys, {"Allocation": row, **(more or {})}, index)


def node_event(row: Row, kind: str, index: int) -> Event:
    """Topic Node."""
    return Event("Node", kind, row["ID"], "", None, {"Node": row}, index)


def deployment_event(row: Row, kind: str, index: int) -> Event:
    """Topic Deployment."""
    return Event("Deployment", kind, row["ID"], row["Namespace"], (row["JobID"],), {"Deployment": row}, index)
