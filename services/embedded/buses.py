"""Which bus the embedded platform uses: its own, or a RabbitMQ that is there or is started for the purpose.

A RabbitMQ that is started here serves readers outside as well; of one that is there, settings of the gateway tell it.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from services.embedded.folder import DataFolder
from services.embedded.settings import EmbeddedSettings
from shared.adapters.embedded_bus import EmbeddedBus
from shared.errors import Misconfigured, Unavailable
from shared.ports import MessageBus


@dataclass(frozen=True, slots=True)
class OpenBus:
    """The bus, and settings of the gateway that name the broker for readers outside, if there is one."""

    bus: MessageBus
    for_subscribers: Mapping[str, SecretStr] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def open_bus(settings: EmbeddedSettings, folder: DataFolder) -> AsyncIterator[OpenBus]:
    """The bus, open; closed at the end (a broker that was started is ended, too)."""
    if settings.bus == "embedded":
        bus = await EmbeddedBus.open(folder.path / "bus.sqlite")
        try:
            yield OpenBus(bus)
        finally:
            await bus.close()
        return
    from shared.adapters.rabbitmq import AmqpBus, declare  # not loaded, and not paid for, without a broker
    from shared.adapters.rabbitmq.throwaway import Offer, whole_broker

    async with contextlib.AsyncExitStack() as stack:
        offer = (
            Offer(settings.amqp_url)
            if settings.amqp_url
            else await stack.enter_async_context(whole_broker(folder.path / "rabbitmq"))
        )
        try:
            await declare(offer.url)
        except Unavailable as away:
            raise Misconfigured(
                f"{away.what}\n  start that broker; or unset AMQP_URL, and Debian's is started for you; or leave out "
                "--bus amqp"
            ) from away
        amqp = await AmqpBus.open(offer.url)
        stack.push_async_callback(amqp.close)
        yield OpenBus(amqp, _for_subscribers(offer.subscribers_amqp_url, offer.subscribers_management_url))


def _for_subscribers(amqp_url: str, management_url: str) -> dict[str, SecretStr]:
    if not amqp_url:
        return {}
    return {
        "subscribers_amqp_url": SecretStr(amqp_url), "subscribers_management_url": SecretStr(management_url),
    }  # fmt: skip
