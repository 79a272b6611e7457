"""Decides what is asked for and signs what is allowed: one grant for one command, its type and its exact bytes.

Auth never sees a body: it signs the digest, and the receiver holds grant and body side by side
(`shared/runtime/tokens.py`). Called by `api.py` with a principal whose live token has just been verified.
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
"""Signatures (about 2 ms) between two chances for everybody else on the event loop."""


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
        question, key = uuid6.uuid7().hex, self._chest.current()
        answers: list[GrantAnswer] = []
        counts: Counter[tuple[str, str | None, bool, str]] = Counter()
        for index, item in enumerate(items):
            if index % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            decision = decide(asker, item, standing, self._layers, secrets, now)
            counts[item.verb, item.vo, decision.allowed, decision.code] += 1
            answers.append(self._answer(asker, item, decision, f"{question}.{index}", key, now))
        rows = [
            AuditRow(question, now, asker.principal, verb, vo, allowed, code, count)
            for (verb, vo, allowed, code), count in counts.items()
        ]
        return answers, rows

    def _answer(
        self, asker: Verified, item: GrantItem, decision: Decision, id: str, key: SigningKey, now: datetime
    ) -> GrantAnswer:
        if not decision.allowed:
            return GrantAnswer(refusal=decision.message, refusal_code=decision.code)
        grant = sign_command_grant(
            key, asker, item, id=id, now=now, life=self._lives.command, policy=decision.policy_version
        )
        return GrantAnswer(grant=grant)

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


def sign_command_grant(
    key: SigningKey, asker: Verified, item: GrantItem, *, id: str, now: datetime, life: timedelta, policy: str = ""
) -> str:
    """A JWS of type `serai-grant+jwt` over exactly this item; `policy` is the version that it was decided by."""
    more: dict[str, Any] = {} if item.demand is None else {"demand_sha256": item.demand.digest()}
    if asker.workload is not None:
        more["workload"] = asker.workload.model_dump()
    return _signed(key, tokens.COMMAND_GRANT, {
        **_common(asker, now, now + life), "jti": id, "verb": item.verb, "vo": item.vo, "own": item.own,
        "message_type": item.message_type, "content_type": item.content_type, "body_sha256": item.body_sha256,
        "policy": policy, **more,
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
