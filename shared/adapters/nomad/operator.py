"""What a site's operator does to their cluster for us, over HTTP: namespaces, policies, tokens. Synchronous.

Used by `serai-platform namespaces`, by the throw-away regions and by tests; no service holds such a token.
"""

import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx2

from shared.adapters.nomad import trust
from shared.adapters.nomad.answers import error_of
from shared.adapters.nomad.policies import FINER_SINCE, Role, policy
from shared.errors import Misconfigured, Refused, Unavailable

MANAGEMENT = "a management token"


class NomadOperator:
    """Calls with an operator's token. Raises Misconfigured, Unavailable and what else `error_of` says."""

    def __init__(self, address: str, token: str = "", context: ssl.SSLContext | None = None) -> None:
        self.address = address
        self._client = httpx2.Client(base_url=address, verify=context or True, trust_env=False, timeout=10.0)
        self.token = token

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def bootstrap(self) -> str:
        """The first management token of a cluster with new ACLs; used from now on."""
        self.token = str(self.ask("POST", "/v1/acl/bootstrap")["SecretID"])
        return self.token

    def has_acls(self) -> bool:
        """Whether the cluster asks for tokens at all."""
        try:
            self.ask("GET", "/v1/acl/policies")
        except (Refused, Unavailable) as answer:
            if "ACL support disabled" in answer.what:
                return False
            raise
        return True

    def namespaces(self) -> frozenset[str]:
        return frozenset(row["Name"] for row in self.ask("GET", "/v1/namespaces") or ())

    def make_namespace(self, name: str, description: str = "") -> None:
        """Make it, or give it another description."""
        self.ask("POST", "/v1/namespace", {"Name": name, "Description": description})

    def apply_policy(self, name: str, rules: str, description: str = "") -> None:
        """Make the policy, or change it: tokens that have it follow at once."""
        self.ask("POST", f"/v1/acl/policy/{name}", {"Name": name, "Description": description, "Rules": rules})

    def version(self) -> tuple[int, ...]:
        """The agent's Nomad, as (1, 11, 2)."""
        said = str(self.ask("GET", "/v1/agent/self")["config"]["Version"]["Version"])
        return tuple(int(part) for part in said.split("-")[0].split("."))

    def policy_for(self, role: Role, namespaces: Sequence[str]) -> str:
        """The role's policy in the words that this cluster knows."""
        return policy(role, namespaces, before_1_11_2=self.version() < FINER_SINCE)

    def make_token(self, name: str, *policies: str) -> str:
        """A new client token; its secret."""
        body = {"Name": name, "Type": "client", "Policies": list(policies)}
        return str(self.ask("POST", "/v1/acl/token", body)["SecretID"])

    def tokens_for(self, namespaces: tuple[str, ...]) -> dict[Role, str]:
        """The scheduler's and the monitor's token, with the least policies for these namespaces."""
        for role in Role:
            self.apply_policy(role, self.policy_for(role, namespaces))
        return {role: self.make_token(role, role) for role in Role}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One call; None where Nomad answers nothing."""
        where = f"{self.address}: {method} {path}"
        try:
            answer = self.request(method, path, body)
        except httpx2.HTTPError as lost:
            if mend := trust.trouble(lost):
                raise Misconfigured(f"{where}: {lost} ({mend})", code="nomad_tls") from lost
            raise Unavailable(f"{where}: {type(lost).__name__} {lost}", code="nomad_unavailable") from lost
        if not answer.is_success:
            raise error_of(answer.status_code, answer.text, where, wrote=method != "GET", needs=MANAGEMENT)
        return answer.json() if answer.content else None

    def request(
        self, method: str, path: str, body: Any = None, params: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """One call as it is answered, whatever it is. Raises httpx2's errors."""
        headers = {"X-Nomad-Token": self.token} if self.token else {}
        return self._client.request(method, path, json=body, params=params, headers=headers)
