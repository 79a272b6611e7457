"""What the throw-away Consul is told, by its version."""

import pytest

from shared.adapters.consul.throwaway import without_grpc


@pytest.mark.parametrize(("said", "closed"), [
    ("Consul v1.8.7\nProtocol 2 spoken by default", {"grpc"}),
    ("Consul v1.13.9\nRevision 1a2b3c", {"grpc"}),
    ("Consul v1.14.0\nRevision 1a2b3c", {"grpc", "grpc_tls"}),
    ("Consul v1.22.7\nRevision 1a2b3c", {"grpc", "grpc_tls"}),
    ("Consul v2.1.0-dev\n", {"grpc", "grpc_tls"}),
    ("", {"grpc"}),
])  # fmt: skip
def test_no_two_servers_want_the_same_port_and_none_is_told_what_it_does_not_know(said: str, closed: set[str]) -> None:
    assert set(without_grpc(said)) == closed
