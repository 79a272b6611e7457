"""The only place where tests let time pass: the pace of a load, the rhythm of faults, the beat of a poll.

Never in place of a condition: a test that waits for an outcome polls for it, or waits for an event.
"""

import asyncio
import time


async def pause(seconds: float) -> None:
    """Let time pass between two steps of a load, two faults, or two looks at something outside the process."""
    await asyncio.sleep(seconds)


def hold_the_loop(seconds: float) -> None:
    """Keep the event loop from running, as a long computation would."""
    time.sleep(seconds)
