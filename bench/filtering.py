"""Lists by state and by label: as fast with 50,000 jobs stored as with 500?"""

import contextlib
from typing import Final

from bench import filling, jobs, processes
from bench.load import Load
from bench.processes import Up
from bench.results import Result, of_rounds
from shared.contracts.commands import Principal

FEW, MANY = 500, 50_000
QUERIES: Final = {
    "a state": "state=failed&limit=10",
    "a state that no job has": "state=running&limit=10",
    "a label": "label=kind:rare&limit=10",
    "a label and a state": "label=kind:rare&state=succeeded&limit=10",
}
AS_FAST: Final = 1.25
"""Within the noise of two runs of the same thing."""


def measure(quick: bool) -> list[Result]:
    """Two platforms side by side, the same question to each in turn."""
    rounds, seconds, many = (1, 0.2, 2_000) if quick else (5, 1.0, MANY)
    took: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in QUERIES}
    with processes.folder() as folder, contextlib.ExitStack() as stack:
        ups = []
        for count in (FEW, many):
            data = folder / str(count)
            with processes.platform(data, sites=jobs.SITES) as up:
                owner = _principal(up)
            filling.fill(data / "platform" / "gateway.sqlite", owner, count)
            ups.append(stack.enter_context(processes.platform(data, sites=jobs.SITES)))
        for _ in range(rounds):
            for name, query in QUERIES.items():
                for up, found in zip(ups, took[name], strict=True):
                    found.append(_p50_ms(up, query, seconds))
    method = (
        f"{rounds} rounds of {seconds:g} s, one connection; p50 of GET /v1/jobs?... with {many} of the caller's jobs "
        f"stored against {FEW}, both platforms up, in turn; rows written by bench/filling.py"
    )
    return [
        of_rounds(f"list by {name}, {many:,} jobs stored", slow, "ms", method, against=fast,
                  denominator_is=f"{FEW} stored", goal=("at most", AS_FAST))
        for name, (fast, slow) in took.items()
    ]  # fmt: skip


def _principal(up: Up) -> Principal:
    with up.client() as client:
        told = client.get("/v1/whoami").raise_for_status().json()
    return Principal.model_validate(told["principal"])


def _p50_ms(up: Up, query: str, seconds: float) -> float:
    told = processes.load(Load(f"{up.url}/v1/jobs?{query}", 1, seconds, headers=up.headers()))
    if set(told["statuses"]) != {"200"}:
        raise RuntimeError(f"{query} was answered {told['statuses']}")
    return float(told["p50_ms"])
