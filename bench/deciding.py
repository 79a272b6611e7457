"""The placement function alone: decisions a second over ten sites, in this process."""

import time
from typing import Final

from bench.results import Result, of_rounds
from services.scheduler import placement
from services.scheduler.placement import Snapshot
from services.scheduler.snapshots import Facts, SiteRecord, take
from shared.job import JobSpec
from shared.site import NodeCapacity, Site, SiteCapacity, SiteHealth

SITES, NODES = 10, 4
VO: Final = "vo.climate.example"


def measure(quick: bool) -> list[Result]:
    """Verdicts of ten sites for one job, each its own decision."""
    rounds, count = (1, 200) if quick else (7, 4000)
    snapshot, spec = _snapshot(), JobSpec(name="job", vo=VO, command=("/bin/true",))
    rates = []
    for number in range(rounds):
        start = time.process_time()
        fitting = sum(_decided(spec, snapshot, f"{number}-{each}") for each in range(count))
        rates.append(count / (time.process_time() - start))
        if not fitting:
            raise RuntimeError("no site fitted: the measurement measures nothing")
    method = f"{rounds} rounds of {count} decisions in one process, by its CPU clock; {SITES} sites of {NODES} nodes"
    return [of_rounds("placement decisions over 10 sites", rates, "decisions/s", method, goal=("at least", 2000))]


def _decided(spec: JobSpec, snapshot: Snapshot, salt: str) -> bool:
    return placement.decide(spec, snapshot, namespace="default", avoid={}, forbidden={}, salt=salt)[0].fits


def _snapshot() -> Snapshot:
    sites = [
        Site(
            name=f"site-{number}", country="CZ", vos=(VO,), cluster=f"site-{number}", address="http://site.invalid",
            region="global", hardware=("x86_64",), mhz_per_core=1000, health=SiteHealth.PASSING,
            carbon_g_per_kwh=50.0 * number, cost_per_core_hour=0.01 * number,
        )
        for number in range(SITES)
    ]  # fmt: skip
    return take(sites, Facts({site.name: SiteRecord(site.name, _capacity()) for site in sites}))


def _capacity() -> SiteCapacity:
    return SiteCapacity(
        nodes=tuple(
            NodeCapacity(
                name=f"node-{number}", cpu_mhz=16_000, memory_mib=65_536, disk_mib=200_000,
                drivers=("raw_exec", "exec", "docker"),
            )
            for number in range(NODES)
        )
    )  # fmt: skip
