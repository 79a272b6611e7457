"""How things stand at one moment: which suspensions hold and which policy each VO has. One immutable value for each
decision; `book.py` keeps the newest. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
