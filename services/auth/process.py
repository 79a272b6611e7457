"""Auth as a process of its own: the real adapters it stands on."""

from services.auth import wiring
from services.auth.settings import AuthSettings
from shared.processes.backing import Backing
from shared.runtime.clock import system_clock


async def work(ground: Backing) -> None:
    """Open, assemble, serve until told to stop."""
    settings = ground.read(AuthSettings)
    store = await ground.store(wiring.MIGRATIONS)
    service = await wiring.assemble(
        settings, store=store, clock=system_clock, tracer=ground.tracer, door=ground.guard()
    )  # fmt: skip
    await ground.serve(service)
