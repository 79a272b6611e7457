"""The jobs that measurements hand in, and the sites that run them."""

import json
from typing import Any, Final

VO: Final = "vo.climate.example"
SITES: Final = [
    {
        "name": name, "country": country, "vos": [VO], "cores": 64, "memory_mib": 65_536, "disk_mib": 200_000,
        "hardware": ["x86_64"], "carbon_g_per_kwh": carbon, "cost_per_core_hour": 0.02,
    }
    for name, country, carbon in (("prague", "CZ", 430), ("lyon", "FR", 55), ("bari", "IT", 310))
]  # fmt: skip
"""The demo's three sites, large enough that a load test never waits for room."""


def job(name: str = "bench-{n}", *, run_for: str = "0s", **fields: Any) -> dict[str, Any]:
    """A job of the mock driver, as a user would write it: about 350 bytes."""
    return {
        "name": name, "vo": VO, "command": ["/bin/true"],
        "resources": {"cpu": 0.1, "memory": "64MiB", "disk": "20MiB"},
        "metadata": {"serai.mock": f"run_for={run_for}", "experiment": "throughput"}, "labels": {"batch": "bench"},
        **fields,
    }  # fmt: skip


def unplaceable(name: str = "bench-{n}") -> dict[str, Any]:
    """A job that no site has room for: accepted and queued, and nothing more."""
    return job(name, resources={"cpu": 0.1, "memory": "64MiB", "gpus": {"count": 1}})


def body(of: dict[str, Any]) -> str:
    """The request's body."""
    return json.dumps(of)


def batch(size: int, of: dict[str, Any]) -> str:
    """The body of a batch of equal jobs."""
    return json.dumps({"jobs": [of] * size})
