"""The gateway as a process of its own: the real adapters it stands on."""

from services.gateway import wiring
from services.gateway.settings import GatewaySettings
from shared.processes.backing import Backing
from shared.runtime.clock import system_clock


async def work(ground: Backing) -> None:
    """Open, assemble, serve until told to stop."""
    settings = ground.read(GatewaySettings)
    ground.server.known_as(settings.public_url)
    subscribers = wiring.subscribers_of(settings)
    if subscribers is not None:
        ground.stack.push_async_callback(subscribers.close)
    store = await ground.store("services.gateway.migrations")
    service = await wiring.assemble(
        settings, store=store, bus=await ground.bus(), auth=ground.ask("auth"), scheduler=ground.ask("scheduler"),
        monitor=ground.ask("monitor"), clock=system_clock, tracer=ground.tracer,
        subscribers=subscribers,
    )  # fmt: skip
    await ground.serve(service)
