"""Asks auth for grants. While one question of a caller is under way, the caller's further commands gather.

So hundreds of single submissions a second cost a few questions, and a lonely one waits for nobody.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.contracts import codec
from shared.contracts.commands import Command
from shared.contracts.policies import Demand
from shared.contracts.questions import GrantAnswer, GrantItem, GrantRequest, GrantsAnswer
from shared.errors import Refused, Unavailable
from shared.runtime.questions import Questions

MOST_ITEMS: Final = 1_000
_OF_THE_JOB: Final = frozenset({"secret_missing", "secrets_too_large"})
"""Refusals that say what is wrong with the job, not that its owner may not."""


@dataclass(slots=True)
class _Waiting:
    items: Sequence[GrantItem]
    answer: asyncio.Future[Sequence[GrantAnswer]]


class Granting:
    """One per process; nothing is remembered: a grant covers exactly one body."""

    def __init__(self, auth: Questions) -> None:
        self._auth = auth
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def ask(self, token: str, items: Sequence[GrantItem]) -> Sequence[GrantAnswer]:
        """An answer for each item, in order. Raises Refused for a bad token, Unavailable while auth is away."""
        waiting = _Waiting(items, asyncio.get_running_loop().create_future())
        queue = self._waiting.get(token)
        if queue is None:
            self._waiting[token] = deque([waiting])
            task = asyncio.create_task(self._serve(token), name="gateway.grants")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        else:
            queue.append(waiting)
        return await waiting.answer

    async def _serve(self, token: str) -> None:
        """Ask until nobody of this caller waits any more."""
        queue = self._waiting[token]
        asked: list[_Waiting] = []
        try:
            while queue:
                asked = _gathered(queue)
                await self._ask_for(token, asked)
        finally:
            del self._waiting[token]
            for left in (*asked, *queue):
                left.answer.cancel()

    async def _ask_for(self, token: str, asked: list[_Waiting]) -> None:
        items = tuple(item for each in asked for item in each.items)
        try:
            answers = await self._grants(token, items)
        except Exception as error:
            for each in asked:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        start = 0
        for each in asked:
            if not each.answer.done():
                each.answer.set_result(answers[start : start + len(each.items)])
            start += len(each.items)

    async def _grants(self, token: str, items: tuple[GrantItem, ...]) -> tuple[GrantAnswer, ...]:
        request = GrantRequest(token=token, items=items)
        answers = (await self._auth.ask("POST", "/internal/grants", GrantsAnswer, body=request)).answers
        if len(answers) != len(items):
            raise Unavailable(f"auth answered {len(answers)} of {len(items)} requests for grants")
        return answers


def _gathered(queue: deque[_Waiting]) -> list[_Waiting]:
    taken = [queue.popleft()]
    count = len(taken[0].items)
    while queue and count + len(queue[0].items) <= MOST_ITEMS:
        count += len(queue[0].items)
        taken.append(queue.popleft())
    return taken


def item_for(
    kind: type[Command], body: bytes, vo: str | None, *, own: bool = True, demand: Demand | None = None,
    attempt: str | None = None,
) -> GrantItem:  # fmt: skip
    """What is asked of auth for a command with exactly this body; `demand`: what a job in it asks for; `attempt`: which
    one tells of itself in it.
    """
    digest = hashlib.sha256(body).hexdigest()
    return GrantItem(
        verb=kind.verb, vo=vo, message_type=codec.type_of(kind), body_sha256=digest, own=own, demand=demand,
        attempt=attempt,
    )  # fmt: skip


def granted(answer: GrantAnswer) -> str:
    """The grant, or Refused (code `forbidden`, `secret_missing`, `secrets_too_large`) with auth's words."""
    if answer.grant is None:
        code = answer.refusal_code if answer.refusal_code in _OF_THE_JOB else "forbidden"
        raise Refused(answer.refusal or "not allowed", code=code or "")
    return answer.grant
