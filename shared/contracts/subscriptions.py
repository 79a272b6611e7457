"""What a reader outside of the platform gets over AMQP: the queue's name, each message's headers, the gap.

The gateway writes by it, the broker's adapter packs by it, and the AsyncAPI document is made from it.
"""

from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

VHOST: Final = "public"
"""The virtual host for readers outside; nothing of the platform's own is in it."""
QUEUE_PREFIX: Final = "sub."
EVENT_ID: Final = "serai-event-id"
PREVIOUS_ID: Final = "serai-previous-event-id"
HEADERS: Final[dict[str, str]] = {
    EVENT_ID: "`<epoch>-<position>`: grows from message to message. What is not beyond the last one that you handled "
    "came twice; give it as `from` to go on behind it.",
    PREVIOUS_ID: "The id of the message before this one in your queue. If it is not the last one that you had, "
    "something was taken out of the queue in between.",
}


def queue_of(subscription_id: str) -> str:
    """The name of a subscription's queue, and of the one login that may read it."""
    return QUEUE_PREFIX + subscription_id


@dataclass(frozen=True, slots=True)
class Letter:
    """One message for a reader outside. `type` is the CloudEvent's type, `body` the CloudEvent in structured mode."""

    event_id: str
    previous_id: str
    type: str
    body: bytes


class SubscriptionGap(BaseModel):
    """Events behind `last_event_id` may be missing: read what you follow again, then go on from here.

    Comes first in the queue. `too_old`: the platform does not keep events back to where you were. `other_log`: the
    id is of another platform, or of one that was set up anew.
    """

    model_config = ConfigDict(frozen=True)
    kind: ClassVar[str] = "subscription.gap"
    version: ClassVar[int] = 1

    reason: Literal["too_old", "other_log"]
    last_event_id: str = Field(description="Where you asked to go on.")
    resumed_at: str = Field(description="The id behind which events come now.")
