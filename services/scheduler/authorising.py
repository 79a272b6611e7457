"""Nothing runs without authority: grants on commands, and the question to auth at dispatch.

A bad grant is refused here, before any transaction: the consumer sets the message aside. A good one that has expired
is put to auth again; auth away holds the message back. Never parses a user's token.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from services.scheduler.rounds import Answer, Question
from shared.contracts.codec import Decoded
from shared.contracts.commands import SubmitJob
from shared.contracts.envelope import Message
from shared.contracts.questions import Decision, DecisionRequest
from shared.contracts.suspensions import Suspended
from shared.errors import Refused, Unavailable
from shared.ports import Clock
from shared.runtime import logs
from shared.runtime.questions import Questions
from shared.runtime.tokens import GrantClaims, GrantExpired, ReadGrant
from shared.runtime.trust_watch import TrustWatch

log = logs.get("scheduler.authorising")

_REMEMBERED: Final = 4096


class Verifier(Protocol):
    """`shared.runtime.tokens.GrantVerifier`, as far as it is used here."""

    async def verify_command(self, message: Message, decoded: Decoded | None = None) -> GrantClaims: ...

    async def verify_read(self, grant: str) -> ReadGrant: ...


@dataclass(frozen=True, slots=True)
class _Cached:
    answer: Answer
    until: datetime


class Authorising:
    """Asks auth, and remembers its answers for a short while. The news of a suspension for a shorter one: as soon as
    `TrustWatch` has it too, that alone tells of its end.
    """

    def __init__(
        self, auth: Questions, verifier: Verifier, clock: Clock, trust: TrustWatch, *, cache_s: float, away_s: float
    ) -> None:
        self._auth = auth
        self._verifier = verifier
        self._clock = clock
        self._cache = timedelta(seconds=cache_s)
        self._away = timedelta(seconds=away_s)
        self._answers: OrderedDict[Question, _Cached] = OrderedDict()
        self._denied: OrderedDict[str, str] = OrderedDict()
        self._trust = trust
        self._trusted = self._trust.version

    # -- commands -------------------------------------------------------------------------------------------------

    async def command(self, message: Message, decoded: Decoded | None = None) -> None:
        """Return when the command may be handled; `denial` then tells whether auth has said no meanwhile.

        Raises Refused for a grant that is bad, Unavailable when that, or a fresh decision, cannot be had now.
        """
        try:
            await self._verifier.verify_command(message, decoded)
        except GrantExpired as expired:
            await self._decide_anew(message, expired.claims)
        except Refused as refused:
            log.critical("grant_refused", type=message.type, id=message.id, code=refused.code, what=refused.what)
            raise

    def denial(self, message_id: str) -> str | None:
        """Why auth says no to a command whose grant had expired; None when it may be carried out."""
        return self._denied.get(message_id)

    async def _decide_anew(self, message: Message, claims: GrantClaims) -> None:
        asked = DecisionRequest(principal=claims.principal, vo=claims.vo or "", verb=claims.verb)
        decision = await self._auth.ask("POST", "/internal/decisions", Decision, body=asked)
        log.info("expired_grant", id=message.id, grant=claims.id, allowed=decision.allowed, code=decision.code)
        if not decision.allowed:
            self._denied[message.id] = decision.message or decision.code
            while len(self._denied) > _REMEMBERED:
                self._denied.popitem(last=False)

    @property
    def suspended(self) -> Suspended:
        """Who and what is suspended, as last heard by `refreshed`."""
        return self._trust.known

    # -- dispatch -------------------------------------------------------------------------------------------------

    async def refreshed(self) -> None:
        """Forget every answer when somebody was suspended or a policy changed since: known here within seconds."""
        await self._trust.current()
        if self._trust.version != self._trusted:
            self._trusted = self._trust.version
            self._answers.clear()

    def answers(self) -> dict[Question, Answer]:
        """What is known at this moment."""
        now = self._clock()
        while self._answers:
            question, oldest = next(iter(self._answers.items()))
            if oldest.until > now and len(self._answers) <= _REMEMBERED:
                break
            del self._answers[question]
        return {question: cached.answer for question, cached in self._answers.items() if cached.until > now}

    async def ask(self, questions: Iterable[Question]) -> dict[Question, Answer]:
        """Find out, now; `away` where no answer came."""
        asked = list(questions)
        return dict(zip(asked, await asyncio.gather(*(self._ask(question) for question in asked)), strict=True))

    async def foreseen(self, questions: Iterable[Question]) -> dict[Question, Answer]:
        """Auth's word on a job that nobody has handed in: what is known, the rest asked. None of it is remembered, for
        auth has not written it down.
        """
        await self.refreshed()
        known, asked = self.answers(), list(questions)
        told = await asyncio.gather(*(self._foreseen(question, known.get(question)) for question in asked))
        return dict(zip(asked, told, strict=True))

    async def _foreseen(self, question: Question, known: Answer | None) -> Answer:
        try:
            return known or await self._decision(question, foreseen=True)
        except Unavailable as away:
            return Answer(False, away.what, away=True)

    async def _ask(self, question: Question) -> Answer:
        try:
            answer = await self._decision(question)
            life = self._away if answer.suspended else self._cache
        except Unavailable as away:
            log.warning("auth_away", culprit=away.what)
            answer, life = Answer(False, away.what, away=True), self._away
        self._answers.pop(question, None)
        self._answers[question] = _Cached(answer, self._clock() + life)
        return answer

    async def _decision(self, question: Question, *, foreseen: bool = False) -> Answer:
        """A no at this site is asked again without the site: it may be a no everywhere."""
        at_site = await self._put(question, question.site, foreseen)
        if at_site.allowed and at_site.policy is None:
            return Answer(True)
        anywhere = await self._put(question, None, foreseen)
        if at_site.allowed and anywhere.allowed:
            return Answer(True, policy=at_site.policy, policy_anywhere=anywhere.policy)
        no = anywhere if at_site.allowed else at_site
        suspended = anywhere.code.endswith("_suspended") and not anywhere.allowed
        return Answer(False, no.message or no.code, everywhere=not anywhere.allowed, suspended=suspended)

    async def _put(self, question: Question, site: str | None, foreseen: bool) -> Decision:
        asked = DecisionRequest(
            principal=question.principal, vo=question.vo, verb=SubmitJob.verb, site=site, foreseen=foreseen
        )
        return await self._auth.ask("POST", "/internal/decisions", Decision, body=asked)
