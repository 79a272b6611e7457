"""The pure decisions of the HTTP edge about hosts, paths and proxies."""

from ipaddress import ip_network
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.runtime.edge import heads

pytestmark = pytest.mark.fast
ODD = st.text(alphabet="/.%\\abc25eEfF0 \0\r\n\x7fé:;", max_size=30)


@given(ODD)
def test_a_plain_path_is_the_same_for_everybody_who_reads_it(path: str) -> None:
    """Whoever decodes it once, twice or not at all, and whoever resolves dots, comes to the same parts."""
    raw = b"/" + path.encode()
    if not heads.path_is_plain(raw):
        return
    once = unquote(raw.decode("ascii"))
    assert unquote(once) == once
    assert once.count("/") == raw.count(b"/")
    assert not {"", ".", ".."} & set(once.split("/")[1:-1]) and once.split("/")[-1] not in (".", "..")
    assert once.isascii() and once.isprintable() and "\\" not in once


@pytest.mark.parametrize("path", ["/", "/v1/jobs", "/v1/jobs:batch", "/v1/jobs%3Abatch", "/a.b/.c", "/problems/x_y~z"])
def test_ordinary_paths_are_plain(path: str) -> None:
    assert heads.path_is_plain(path.encode())


@given(st.binary(max_size=60))
def test_a_host_is_a_name_or_none(given_host: bytes) -> None:
    name = heads.host_name(given_host)
    assert name is None or (name == name.lower() and not set(name) & set("/@?#\\ \r\n\0,"))


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"Example.ORG:80", "example.org"), (b"example.org.", "example.org"), (b"[::1]:8080", "::1"),
        (b"10.0.0.1", "10.0.0.1"),
        (b"", None), (b":80", None), (b"a:b", None), (b"a:99999", None), (b"a:80:80", None), (b"[::1", None),
        (b"a b", None), (b"[fe80::1%25eth0]", None), (b"-a", None), (b"a" * 300, None),
    ],
)  # fmt: skip
def test_hosts(host: bytes, name: str | None) -> None:
    assert heads.host_name(host) == name


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ([], "10.0.0.1"), ([b"203.0.113.9"], "203.0.113.9"), ([b"198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        ([b"198.51.100.1", b"203.0.113.9, 10.0.0.2"], "203.0.113.9"), ([b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ([b"203.0.113.9, nonsense, 10.0.0.2"], "10.0.0.2"), ([b""], "10.0.0.1"), ([b"203.0.113.9:4711"], "10.0.0.1"),
        ([b"2001:db8::1"], "2001:db8::1"),
    ],
)  # fmt: skip
def test_who_stands_behind_the_proxies(chain: list[bytes], client: str) -> None:
    assert heads.forwarded_for(chain, "10.0.0.1", (ip_network("10.0.0.0/8"),)) == client


def test_a_mapped_address_is_the_proxy_that_it_stands_for() -> None:
    assert heads.is_trusted("::ffff:10.0.0.1", (ip_network("10.0.0.0/8"),))
    assert not heads.is_trusted("::ffff:11.0.0.1", (ip_network("10.0.0.0/8"),))
    assert not heads.is_trusted("unix", (ip_network("10.0.0.0/8"),))
