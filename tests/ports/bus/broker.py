"""The throw-away broker of the tests, with TLS beside plain TCP."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import trustme
from yarl import URL

from shared.adapters.rabbitmq.throwaway import ThrowAway, free_ports


@dataclass(frozen=True, slots=True)
class Broker:
    """`ca` signed the broker's certificate, which is for `localhost`; `stranger` signed nothing of it."""

    process: ThrowAway
    tls_port: int
    ca: Path
    stranger: Path

    @property
    def url(self) -> str:
        return self.process.url

    def tls_url(self, host: str = "localhost", **query: str) -> str:
        return str(URL(f"amqps://guest:guest@{host}:{self.tls_port}/").with_query(query))


@contextlib.asynccontextmanager
async def own_broker(folder: Path) -> AsyncIterator[Broker]:
    """Started in the folder, ended after."""
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    for ca, name in ((authority, "ca.pem"), (stranger, "stranger.pem")):
        ca.cert_pem.write_to_path(str(folder / name))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    (port,) = free_ports(1)
    settings = (
        f"listeners.ssl.1 = 127.0.0.1:{port}",
        *(f"ssl_options.{option} = {folder / name}" for option, name in (
            ("cacertfile", "ca.pem"), ("certfile", "cert.pem"), ("keyfile", "key.pem")
        )),
    )  # fmt: skip
    process = await ThrowAway.start(folder / "broker", settings)
    try:
        yield Broker(process, port, folder / "ca.pem", folder / "stranger.pem")
    finally:
        await process.stop()
