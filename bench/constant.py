"""`serai-platform` with authentication and authorisation answered by a constant: the denominator of what they cost.

    python -m bench.constant up --mock ...

In the bench only. The first caller is verified as always and is every caller from then on; grants are one that nobody
signed for the command, and the scheduler believes them unread. Nothing else differs.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson
from fastapi import Request
from joserfc import jws
from joserfc.jwk import OKPKey

from services.gateway import access, granting
from services.gateway import wiring as gateway
from services.scheduler import authorising
from shared.contracts.codec import Decoded
from shared.contracts.envelope import Message
from shared.contracts.questions import GrantAnswer, GrantItem
from shared.runtime import tokens


class ConstantAccess(access.Access):
    """Everybody is the first who was verified."""

    _everybody: access.Caller | None = None

    def fresh(self, token: str) -> access.Caller | None:
        return self._everybody

    async def caller(self, request: Request) -> access.Caller:
        return self._everybody or await super().caller(request)

    async def verify(self, token: str) -> access.Caller:
        self._everybody = self._everybody or await super().verify(token)
        return self._everybody


class ConstantGranting(granting.Granting):
    """One grant for every command; auth is not asked."""

    async def ask(self, token: str, items: Sequence[GrantItem]) -> Sequence[GrantAnswer]:
        return [GrantAnswer(grant=GRANT)] * len(items)


class ConstantAuthorising(authorising.Authorising):
    """Every command may be handled."""

    async def command(self, message: Message, decoded: Decoded | None = None) -> None:
        return


def _grant() -> str:
    now = datetime.now(UTC)
    payload = {
        "iss": tokens.ISSUER, "aud": tokens.AUDIENCE, "jti": "constant", "iat": now.timestamp(),
        "exp": (now + timedelta(days=1)).timestamp(), "verb": "job.submit", "vo": None, "own": True,
        "sub_id": {"format": "iss_sub", "iss": "https://nobody.invalid", "sub": "nobody"}, "message_type": "constant",
        "content_type": "constant", "body_sha256": "",
    }  # fmt: skip
    header = {"alg": tokens.ALGORITHM, "kid": "constant", "typ": tokens.COMMAND_GRANT}
    key = OKPKey.generate_key("Ed25519")
    return jws.serialize_compact(header, orjson.dumps(payload), key, algorithms=[tokens.ALGORITHM])


GRANT: Final = _grant()

if __name__ == "__main__":
    from services import __main__ as command
    from services.scheduler import wiring as scheduler

    gateway.Access = ConstantAccess  # type: ignore[misc]
    gateway.Granting = ConstantGranting  # type: ignore[misc]
    scheduler.Authorising = ConstantAuthorising  # type: ignore[misc]
    sys.argv[0] = "serai-platform"
    command.main()
