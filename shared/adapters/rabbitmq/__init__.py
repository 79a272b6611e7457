"""The MessageBus on RabbitMQ, 3.10 to 4.x, with aio-pika. See `bus.py`; `declare` makes the topology once."""

from shared.adapters.rabbitmq.bus import AmqpBus
from shared.adapters.rabbitmq.topology import declare

__all__ = ["AmqpBus", "declare"]
