"""Where the broker is and how to trust it, read from one URL; everything wrong with it is said here.

`amqps://user:password@host:5671/vhost?cafile=/etc/serai/ca.pem` and, for brokers that ask clients for certificates,
`&certfile=...&keyfile=...` (with `&auth=external` the certificate is the login). Verification cannot be switched off.
"""

import ssl
from dataclasses import dataclass
from typing import Final

from yarl import URL

from shared.errors import Misconfigured

HEARTBEAT_S: Final = 5
"""The broker drops a silent client after about twice as long, we a silent broker after about three times."""
_KNOWN: Final = {"cafile", "certfile", "keyfile", "auth", "heartbeat"}
_FORM: Final = "amqp://user:password@host:5672/vhost, or amqps://...:5671/vhost?cafile=/path/ca.pem"


@dataclass(frozen=True, slots=True)
class Address:
    """`where` is for messages and logs: it has no credentials."""

    url: URL
    where: str
    tls: ssl.SSLContext | None


def address(text: str) -> Address:
    """Read an AMQP URL. Raises Misconfigured for what cannot work or would not be safe."""
    try:
        url = URL(text)
        port = url.port or (5671 if url.scheme == "amqps" else 5672)
    except ValueError:
        raise Misconfigured(f"the address of RabbitMQ cannot be read; it is written {_FORM}") from None
    if url.scheme not in ("amqp", "amqps") or not url.host:
        raise Misconfigured(f"the address of RabbitMQ begins with {url.scheme or 'nothing'!r}; it is written {_FORM}")
    vhost = url.path.removeprefix("/")
    where = f"RabbitMQ at {url.host}:{port}" + (f" (virtual host {vhost})" if vhost else "")
    if unknown := sorted(set(url.query) - _KNOWN):
        known = ", ".join(sorted(_KNOWN))
        raise Misconfigured(f"{where}: unknown in its address: {', '.join(unknown)}; known are: {known}")
    tls = _tls(url, where)
    kept = {name: value for name, value in url.query.items() if name in ("auth", "heartbeat")}
    return Address(url.with_query({"heartbeat": str(HEARTBEAT_S), **kept}), where, tls)


def _tls(url: URL, where: str) -> ssl.SSLContext | None:
    files = {name: url.query[name] for name in ("cafile", "certfile", "keyfile") if name in url.query}
    if url.scheme == "amqp":
        if files:
            raise Misconfigured(f"{where}: {', '.join(sorted(files))} needs an address that begins with amqps://")
        return None
    try:
        context = ssl.create_default_context(cafile=files.get("cafile"))
        if "certfile" in files:
            context.load_cert_chain(files["certfile"], files.get("keyfile"))
    except OSError as error:
        raise Misconfigured(f"{where}: cannot use its TLS files {', '.join(files.values())}: {error}") from error
    return context
