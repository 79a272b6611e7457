"""The `serai` command against a gateway that is not there."""

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from serai import cli
from tests.unit.client.builders import Time, a_pace
from tests.unit.client.fake_gateway import TOKEN, FakeGateway

Serai = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def serai(gateway: FakeGateway, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Serai:
    """Runs one command, signed in as alice; gives exit code, standard output, standard error."""

    def run(
        *args: str, token: str | None = TOKEN, transport: httpx2.AsyncBaseTransport | None = None
    ) -> tuple[int, str, str]:
        environment = {
            "SERAI_CONFIG_DIR": str(tmp_path / "config"), "SERAI_URL": "http://127.0.0.1:8080", "SERAI_KEYRING": "off",
            "TMPDIR": str(tmp_path),
        }  # fmt: skip
        if token:
            environment["SERAI_TOKEN"] = token
        code = cli.main(args, environment, transport or httpx2.ASGITransport(gateway.app), a_pace(Time()))
        told = capfdbinary.readouterr()
        return code, told.out.decode(), told.err.decode()

    return run
