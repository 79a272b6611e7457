"""The scheduler as a process of its own: the real adapters it stands on."""

from services.scheduler import wiring
from services.scheduler.settings import SchedulerSettings
from shared.processes.backing import Backing
from shared.processes.sites import open_sites
from shared.runtime.clock import system_clock


async def work(ground: Backing) -> None:
    """Open, assemble, serve until told to stop."""
    settings = ground.read(SchedulerSettings)
    store = await ground.store(wiring.MIGRATIONS)
    sites = await open_sites(ground)
    service = await wiring.assemble(
        settings, store=store, bus=await ground.bus(), registry=sites.registry,
        engines={name: cluster.engine for name, cluster in sites.clusters.items()}, auth=ground.ask("auth"),
        verifier=ground.verifier(), clock=system_clock, tracer=ground.tracer, door=ground.guard(),
    )  # fmt: skip
    service.tasks.update(sites.tasks)
    await ground.serve(service)
