"""How things stand at one moment: which suspensions hold, which policy each VO has, and what was last seen of somebody
who is not here. Immutable values to decide over; `book.py` and `principals.py` have the newest. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.auth.permissions import PlatformRole, Role
from services.auth.policies import StoredPolicy, nobody_wrote
from shared.contracts.suspensions import Suspended, TrustState


@dataclass(frozen=True, slots=True)
class Standing:
    """Suspensions and policies of one version of trust."""

    state: TrustState = field(default_factory=lambda: TrustState(version=0))
    suspended: Suspended = field(default_factory=Suspended)
    policies: Mapping[str, StoredPolicy] = field(default_factory=dict)

    def policy_of(self, vo: str) -> StoredPolicy:
        """A VO's newest policy; one that restricts nothing where nobody wrote any."""
        return self.policies.get(vo) or nobody_wrote(vo)


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The memberships and platform roles of a principal that were seen no longer ago than asked."""

    memberships: dict[str, Role]
    platform_roles: frozenset[PlatformRole]
    assurance: frozenset[str] = frozenset()
