"""Promises of MessageBus that an adapter cannot keep, by name; all others are tested as they stand.

Tests that meet one of these ask `bus.keeps(NAME)` and check what the adapter does in its place.
"""

from typing import Final

GIVING_BACK_IS_FREE: Final = "giving back spends no attempt"
FIRST_CRASH_COUNTS: Final = "a crash counts as an attempt from the first one on"
ANY_WAIT: Final = "a retry waits about as long as it was asked to"
OTHERS_UNSETTLED: Final = "depth counts what other processes have not settled"

NOT_KEPT: Final = {
    "embedded": {
        FIRST_CRASH_COUNTS: "What was published since the start is noted as held with the next commit and not waited "
        "for: its first crash may go uncounted. What was there at the start is counted at each crash.",
    },
    "rabbitmq": {
        GIVING_BACK_IS_FREE: "Quorum queues count every return of a message, also from a consumer that closes its "
        "channel in order (3.10 to 4.2 count a nack as well).",
        ANY_WAIT: "A message waits on the shortest rung of the retry ladder that is long enough, and on the longest "
        "(300 s) when none is.",
        OTHERS_UNSETTLED: "AMQP 0-9-1 tells what is ready; what other processes hold is not in it.",
    },
}
