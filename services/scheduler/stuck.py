"""What fitted nowhere at the last look at the queue, with why. Of the leader, in its memory; found again by its next.

The placer writes it, and leaves such jobs out until something changed. `keeping.py` reads it: a job like them that
comes in waits for the same, is told so at once, and is nothing to look at the queue for.
"""

from services.scheduler.rounds import OwnShape, Plan
from shared.contracts.commands import Principal
from shared.contracts.reasons import Reason


class Stuck:
    """`shapes` for everybody, `owners` for the jobs of one owner."""

    def __init__(self) -> None:
        self.shapes: dict[str, Reason] = {}
        self.owners: dict[OwnShape, Reason] = {}
        self._before: tuple[dict[str, Reason], dict[OwnShape, Reason]] = ({}, {})

    def __bool__(self) -> bool:
        return bool(self.shapes or self.owners)

    def add(self, made: Plan) -> None:
        """What a plan could not place."""
        self.shapes.update(made.stuck)
        self.owners.update(made.held)

    def why(self, owner: Principal, shape: str) -> Reason | None:
        """Why a job of this shape is left out now, None when it is not."""
        return self.owners.get((owner.issuer, owner.subject, shape)) or self.shapes.get(shape)

    def last_heard(self, owner: Principal, shape: str) -> Reason | None:
        """The same while the queue is being looked at again: then, why it was left out before."""
        shapes, owners = self._before
        return self.why(owner, shape) or owners.get((owner.issuer, owner.subject, shape)) or shapes.get(shape)

    def look_again(self) -> None:
        """Something may have changed: all is to be looked at again."""
        self._before = self.shapes, self.owners
        self.shapes, self.owners = {}, {}

    def looked(self) -> None:
        """All was looked at again."""
        self._before = {}, {}

    def forget(self) -> None:
        """Another copy may lead from here on."""
        self.look_again()
        self.looked()
