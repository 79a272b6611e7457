"""The people of the demo and what the platform may believe of them. Data for the development issuer, nothing else."""

from dataclasses import dataclass, field
from typing import Final

NAMESPACE: Final = "urn:geant:dev.serai.example"
AUTHORITY: Final = "dev.serai.example"
PLATFORM_GROUP: Final = "serai-platform"
CLIMATE: Final = "vo.climate.example"
BIO: Final = "vo.bio.example"
AUDIENCE: Final = "serai"


@dataclass(frozen=True, slots=True)
class DemoUser:
    """Somebody who can get tokens for the asking; `roles` by VO."""

    user: str
    name: str
    about: str
    roles: dict[str, str]
    platform_roles: tuple[str, ...] = ()
    service_account: bool = field(default=False)

    def as_row(self) -> dict[str, object]:
        """As `GET /demo/users` tells it."""
        return {
            "user": self.user, "name": self.name, "about": self.about, "roles": self.roles,
            "platform_roles": list(self.platform_roles),
        }  # fmt: skip

    def entitlements(self) -> list[str]:
        """As AARC-G069 spells them."""
        groups = [(vo, role) for vo, role in self.roles.items()]
        groups += [(PLATFORM_GROUP, role) for role in self.platform_roles]
        return [f"{NAMESPACE}:group:{group}:role={role}#{AUTHORITY}" for group, role in groups]


DEMO_USERS: Final = (
    DemoUser(
        "alice", "Alice Adamová", f"manager of {CLIMATE}, member of {BIO}", {CLIMATE: "manager", BIO: "member"}
    ),
    DemoUser("bob", "Bob Baker", f"member of {BIO}, observer of {CLIMATE}", {BIO: "member", CLIMATE: "observer"}),
    DemoUser("olga", "Olga Operator", "operator of all sites, in no VO", {}, ("site-operator",)),
    DemoUser("ada", "Ada Administrator", "administrator of the platform, in no VO", {}, ("admin",)),
)  # fmt: skip
SERVICE_ACCOUNT: Final = DemoUser(
    "demo-workflow", "Demo workflow engine", f"service account, member of {CLIMATE}", {CLIMATE: "member"},
    service_account=True,
)  # fmt: skip
