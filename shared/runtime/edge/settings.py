"""Settings of the HTTP edge, the same for every service. Read as part of the process's settings (`SERAI_EDGE__*`)."""

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

_HOST: Final = re.compile(r"\*|(?:\*\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]|[0-9a-f:]*:[0-9a-f:.]*")
_ORIGIN: Final = re.compile(r"https?://[a-z0-9._\[\]:-]+(?<!/)")


class EdgeSettings(BaseModel):
    """Who may be meant, who may stand in front, and how much of what a request may bring."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Names that a request may give as its `Host`, without port; `*.example.org` for all "
        "below one, `*` for any. Loopback names, the address that was connected to, the advertised one and the host of "
        "the public URL are always allowed. Others get 421: a page of another site, whose name was made to point here, "
        "must not reach us."
    )  # fmt: skip
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="Addresses or networks whose `X-Forwarded-For`, `-Proto` and `-Host` are believed. "
        "From everybody else these headers are dropped."
    )  # fmt: skip
    cors_origins: tuple[str, ...] = Field(
        default=(), description="Origins whose pages may call the API from a browser, as `https://portal.example.org`. "
        "Cookies play no part: pages send a token."
    )  # fmt: skip
    request_line_bytes: int = Field(
        default=8_192, ge=256, description="Bytes of a request's target (path and query); more is 414."
    )
    header_bytes: int = Field(
        default=16_384, ge=1_024, description="Bytes of one header: as long as the longest token; more is 431."
    )
    head_bytes: int = Field(default=32_768, ge=2_048, description="Bytes of all headers together; more is 431.")
    header_count: int = Field(default=100, ge=10, description="Headers of a request; more are 431.")
    body_bytes: int = Field(
        default=33_554_432, ge=65_536,
        description="Bytes of any body: an outer wall, the routes have closer ones; more is 413.",
    )  # fmt: skip
    open_of_address: int = Field(
        default=1_000, ge=0, description="Connections of one address at a time, of one IPv6 network of 64 bits too; "
        "behind `trusted_proxies`, requests of one client that are being answered. More get 429. 0 = no bound."
    )  # fmt: skip
    head_s: float = Field(
        default=10, gt=0, description="Seconds from a connection, or the first byte of a request, to its last header; "
        "then 408."
    )  # fmt: skip
    body_s: float = Field(default=120, gt=0, description="Seconds for a body to arrive, whatever its size; then 408.")
    idle_s: int = Field(default=30, ge=1, description="Seconds that a connection is kept open between two requests.")
    unread_s: float = Field(
        default=60, gt=0, description="Seconds that a client may leave its answer unread; then it is cut off. Event "
        "streams are resumed with `Last-Event-ID`."
    )  # fmt: skip
    hsts_s: int = Field(
        default=0, ge=0, description="Seconds for which browsers shall come over TLS only (`Strict-Transport-Security`)"
        "; 0 = not said. For where a proxy in front speaks TLS."
    )  # fmt: skip

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, told: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.lower() for host in told)
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is no host name; write names without scheme, port or path")
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, told: tuple[str, ...]) -> tuple[str, ...]:
        for origin in told:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin; write https://host[:port], nothing behind it")
        return told
