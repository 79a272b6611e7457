"""The throw-away broker: whatever it began ends with it."""

from pathlib import Path

import pytest

from shared.adapters.rabbitmq import throwaway
from shared.adapters.rabbitmq.throwaway import ThrowAway


@pytest.mark.skipif(throwaway.installed() is None, reason="no RabbitMQ is installed")
async def test_a_broker_that_cannot_be_started_leaves_its_port_mapper_to_nobody(tmp_path: Path) -> None:
    nothing = tmp_path / "rabbitmq-server"
    nothing.write_text("no program")
    nothing.chmod(0o700)
    amqp, distribution, epmd = throwaway.free_ports(3)
    broker = ThrowAway(nothing, tmp_path, throwaway.Ports(amqp, distribution, epmd), ())
    with pytest.raises(OSError, match="Exec format error"):
        await broker.restart()
    assert [one for one in commands() if f"-port\0{epmd}".encode() in one] == []


def commands() -> list[bytes]:
    """Of everything that runs on this machine."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes())
        except OSError:
            continue  # it has ended meanwhile
    return found
