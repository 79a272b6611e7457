"""Decides what is asked for and signs what is allowed: a grant for commands of one type and their exact bytes.

Auth never sees a body: it signs digests, and the receiver holds grant and body side by side
(`shared/runtime/tokens.py`). Commands of one question that differ in nothing but their bytes share a signature. Called
by `api.py` with a principal whose live token has just been verified.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
import uuid6
from joserfc import jws

from services.auth import deciding, permissions, secret_rules
from services.auth.audit import AuditRow
from services.auth.claims import Verified
from services.auth.deciding import refused
from services.auth.policies import Layers
from services.auth.signing_keys import KeyChest, SigningKey
from services.auth.standing import Standing
from shared.contracts import codec, commands
from shared.contracts.questions import Decision, GrantAnswer, GrantItem
from shared.runtime import tokens

_VERBS: Final = {
    f"{codec.TYPE_PREFIX}{command.kind}.v{version}": command.verb
    for command in commands.COMMANDS
    for version in range(1, command.version + 1)
}
"""Message type -> the verb that it needs: nobody may ask for a small verb and send a large command."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_REGISTRY: Final = jws.JWSRegistry(algorithms=[tokens.ALGORITHM])
SecretSizes = Mapping[tuple[str, str], int]
"""Bytes of the caller's secrets by VO and name."""
_AT_ONCE: Final = 50
"""Decisions, or signatures (about 2 ms), between two chances for everybody else on the event loop."""
_SHARED: Final = 8
"""Commands that one signature covers at most: each adds 90 bytes to every message that carries it."""


@dataclass(frozen=True, slots=True)
class Lives:
    """How long grants are good."""

    command: timedelta
    read: timedelta


class Granting:
    """Answers questions for grants."""

    def __init__(self, chest: KeyChest, lives: Lives, layers: Layers) -> None:
        self._chest = chest
        self._lives = lives
        self._layers = layers

    async def answer(
        self, asker: Verified, items: Sequence[GrantItem], standing: Standing, secrets: SecretSizes, now: datetime
    ) -> tuple[list[GrantAnswer], list[AuditRow]]:
        """An answer for each item in order, and what is to be written down before any of them leaves."""
        decisions = []
        for item in items:
            decisions.append(decide(asker, item, standing, self._layers, secrets, now))
            await _breath(len(decisions))
        question = uuid6.uuid7().hex
        counts = Counter(
            (item.verb, item.vo, decision.allowed, decision.code)
            for item, decision in zip(items, decisions, strict=True)
        )
        rows = [
            AuditRow(question, now, asker.principal, verb, vo, allowed, code, count)
            for (verb, vo, allowed, code), count in counts.items()
        ]
        return await self._answers(asker, items, decisions, question, now), rows

    async def _answers(
        self, asker: Verified, items: Sequence[GrantItem], decisions: Sequence[Decision], question: str, now: datetime
    ) -> list[GrantAnswer]:
        answers = [GrantAnswer(refusal=each.message, refusal_code=each.code) for each in decisions]
        key = self._chest.current()
        for number, those in enumerate(alike(items, decisions), start=1):
            grant = GrantAnswer(grant=sign_command_grant(
                key, asker, [items[index] for index in those], id=f"{question}.{those[0]}", now=now,
                life=self._lives.command, policy=decisions[those[0]].policy_version,
            ))  # fmt: skip
            for index in those:
                answers[index] = grant
            await _breath(number)
        return answers

    def read_grant(self, asker: Verified, verbs: Mapping[str, frozenset[str]], now: datetime) -> str:
        """A fresh read grant over these verbs by VO; it never outlives the token."""
        until = min(now + self._lives.read, asker.expires_at)
        return sign_read_grant(self._chest.current(), asker, verbs, now=now, until=until)


def decide(
    asker: Verified, item: GrantItem, standing: Standing, layers: Layers, secrets: SecretSizes, now: datetime
) -> Decision:  # fmt: skip
    """The word on one command, after checking that what is asked for is one."""
    verb = _VERBS.get(item.message_type)
    if verb is None:
        return refused("unknown_command", "there is no such command")
    if verb != item.verb or item.content_type != codec.COMMAND_CONTENT_TYPE:
        return refused("mismatch", f"{item.message_type} needs the verb {verb} and {codec.COMMAND_CONTENT_TYPE}")
    if _DIGEST.fullmatch(item.body_sha256) is None:
        return refused("mismatch", "`body_sha256` must be 64 lower-case hex digits")
    if (item.vo is None) is not verb.startswith("site."):
        return refused("mismatch", "commands about jobs name a VO, commands about sites do not")
    if asker.workload is not None:
        suspension = deciding.access(asker, standing, now)
        return deciding.of_workload(asker.workload, verb, item.attempt, suspension)
    if verb == deciding.REPORT:
        return refused("workload_needed", "a job's progress is told by the job itself, with its own identity")
    if item.demand is not None and verb != permissions.Verb.SUBMIT:
        return refused("mismatch", "only jobs that are handed in have a demand")
    decision = deciding.change(asker, verb, item.vo, item.demand, standing, layers, now, own=item.own)
    if not decision.allowed or item.demand is None or not item.demand.secrets or item.vo is None:
        return decision
    there = secret_rules.judged(item.demand.secrets, item.vo, secrets)
    return decision if there.allowed else there


def alike(items: Sequence[GrantItem], decisions: Sequence[Decision]) -> list[list[int]]:
    """Which of those that are allowed one grant can cover, by their places: they differ in their bodies only."""
    found: dict[tuple[object, ...], list[list[int]]] = {}
    for index, (item, decision) in enumerate(zip(items, decisions, strict=True)):
        if decision.allowed:
            shares = found.setdefault(_but_for_its_body(item, decision), [[]])
            if len(shares[-1]) == _SHARED:
                shares.append([])
            shares[-1].append(index)
    return [those for shares in found.values() for those in shares]


def _but_for_its_body(item: GrantItem, decision: Decision) -> tuple[object, ...]:
    demand = item.demand and item.demand.digest()
    return item.verb, item.vo, item.own, item.message_type, item.content_type, demand, decision.policy_version


def sign_command_grant(
    key: SigningKey, asker: Verified, items: Sequence[GrantItem], *, id: str, now: datetime, life: timedelta,
    policy: str = "",
) -> str:  # fmt: skip
    """A JWS of type `serai-grant+jwt` over exactly these items, which differ in their bodies only; `policy` is the
    version that they were decided by.
    """
    item, bodies = items[0], [each.body_sha256 for each in items]
    more: dict[str, Any] = {} if item.demand is None else {"demand_sha256": item.demand.digest()}
    if asker.workload is not None:
        more["workload"] = asker.workload.model_dump()
    return _signed(key, tokens.COMMAND_GRANT, {
        **_common(asker, now, now + life), "jti": id, "verb": item.verb, "vo": item.vo, "own": item.own,
        "message_type": item.message_type, "content_type": item.content_type,
        "body_sha256": bodies if len(bodies) > 1 else bodies[0], "policy": policy, **more,
    })  # fmt: skip


def sign_read_grant(
    key: SigningKey, asker: Verified, verbs: Mapping[str, frozenset[str]], *, now: datetime, until: datetime
) -> str:
    """A JWS of type `serai-read+jwt`: who asks, with the verbs of each VO and those that hold everywhere."""
    return _signed(key, tokens.READ_GRANT, {
        **_common(asker, now, until), "name": asker.principal.name,
        "memberships": {vo: sorted(those) for vo, those in verbs.items()},
        "platform_verbs": sorted(permissions.platform_verbs_of(asker.platform_roles)),
    })  # fmt: skip


def _common(asker: Verified, now: datetime, until: datetime) -> dict[str, Any]:
    return {
        "iss": tokens.ISSUER, "aud": tokens.AUDIENCE, "iat": now.timestamp(), "exp": until.timestamp(),
        "sub_id": {"format": "iss_sub", "iss": asker.principal.issuer, "sub": asker.principal.subject},
        "client": asker.client, "token": asker.token_id,
    }  # fmt: skip


def _signed(key: SigningKey, kind: str, claims: dict[str, Any]) -> str:
    header = {"alg": tokens.ALGORITHM, "typ": kind, "kid": key.kid}
    return jws.serialize_compact(header, orjson.dumps(claims), key.key, registry=_REGISTRY)


async def _breath(done: int) -> None:
    if done % _AT_ONCE == 0:
        await asyncio.sleep(0)
