"""Which bus the embedded platform uses: its own, or a RabbitMQ that is there or is started for the purpose."""

import contextlib
from collections.abc import AsyncIterator

from services.embedded.folder import DataFolder
from services.embedded.settings import EmbeddedSettings
from shared.adapters.embedded_bus import EmbeddedBus
from shared.errors import Misconfigured, Unavailable
from shared.ports import MessageBus


@contextlib.asynccontextmanager
async def open_bus(settings: EmbeddedSettings, folder: DataFolder) -> AsyncIterator[MessageBus]:
    """The bus, open; closed at the end (a broker that was started is ended, too)."""
    if settings.bus == "embedded":
        bus = await EmbeddedBus.open(folder.path / "bus.sqlite")
        try:
            yield bus
        finally:
            await bus.close()
        return
    from shared.adapters.rabbitmq import AmqpBus, declare  # not loaded, and not paid for, without a broker
    from shared.adapters.rabbitmq.throwaway import broker

    async with contextlib.AsyncExitStack() as stack:
        url = settings.amqp_url or await stack.enter_async_context(broker(folder.path / "rabbitmq"))
        try:
            await declare(url)
        except Unavailable as away:
            raise Misconfigured(
                f"{away.what}\n  start that broker; or unset AMQP_URL, and Debian's is started for you; or leave out "
                "--bus amqp"
            ) from away
        amqp = await AmqpBus.open(url)
        stack.push_async_callback(amqp.close)
        yield amqp
