"""The monitor as a process of its own: the real adapters it stands on."""

from services.monitor import wiring
from services.monitor.settings import MonitorSettings
from shared.processes.backing import Backing
from shared.processes.sites import open_sites
from shared.runtime.clock import system_clock


async def work(ground: Backing) -> None:
    """Open, assemble, serve until told to stop."""
    settings = ground.read(MonitorSettings)
    store = await ground.store("services.monitor.migrations")
    sites = await open_sites(ground)
    service = await wiring.assemble(
        settings, store=store, bus=await ground.bus(), sites=sites.registry,
        watches={name: cluster.watch for name, cluster in sites.clusters.items()}, scheduler=ground.ask("scheduler"),
        verifier=ground.verifier(), clock=system_clock, tracer=ground.tracer, door=ground.guard(),
    )  # fmt: skip
    service.tasks.update(sites.tasks)
    await ground.serve(service)
