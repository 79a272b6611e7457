"""Checking what auth has signed: command grants (commands, their exact bytes) and read grants (who asks, for 60 s).

Auth alone signs (`services/auth/grants.py`). The scheduler checks commands here, scheduler and monitor check
questions. The anchor is the IETF draft on Transaction Tokens; the subject is spelled as in RFC 9493 (`iss_sub`).
"""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from shared.contracts import codec
from shared.contracts.commands import CancelJob, Command, CordonSite, Principal, ReportProgress, SubmitJob, UncordonSite
from shared.contracts.envelope import Message
from shared.contracts.policies import demand_of
from shared.contracts.questions import WorkloadIdentity
from shared.errors import Refused, Unavailable
from shared.ports import Clock
from shared.runtime import jws
from shared.runtime.key_ring import KeyRing, KeyTimes
from shared.runtime.questions import Questions
from shared.runtime.trust_watch import TrustWatch

ISSUER: Final = "serai-auth"
AUDIENCE: Final = "serai"
ALGORITHM: Final = "Ed25519"
"""RFC 9864's name; the older `EdDSA` leaves the curve open."""
COMMAND_GRANT: Final = "serai-grant+jwt"
READ_GRANT: Final = "serai-read+jwt"
GRANT_HEADER: Final = "x-grant"

MOST_GRANT_BYTES: Final = 32_768
"""A read grant lists the verbs of every VO; a command grant is below 1 kB."""
_SKEW = timedelta(seconds=60)
_TIMES: Final = KeyTimes(cool_down_s=5, refresh_s=600)
_REMEMBERED: Final = 4_096
_SHARED: Final = 256
"""Command grants that are remembered for others that come with the same one: those of one question come together."""


class GrantInvalid(Refused):
    """Permanent: nothing may be done on the strength of this grant. Alarm, and never execute."""

    def __init__(self, what: str) -> None:
        super().__init__(what, code="grant_invalid")


@dataclass(frozen=True, slots=True)
class GrantClaims:
    """What a command grant says: this principal may have exactly these bytes done, of one command or of each of a few.

    `own`: only if what the command acts on is the principal's own; the receiver checks that with `covers`. `client` and
    `token_id`: with what it was asked for. `policy`: the version that allowed it; `demand_sha256`: what it judged.
    """

    id: str
    principal: Principal
    verb: str
    vo: str | None
    own: bool
    message_type: str
    content_type: str
    bodies: tuple[str, ...]
    """SHA-256 (hex) of each."""
    issued_at: datetime
    expires_at: datetime
    client: str = ""
    token_id: str = ""
    policy: str = ""
    demand_sha256: str = ""
    workload: WorkloadIdentity | None = None
    """Of a running job that tells of itself: which one."""

    def covers(self, owner: Principal) -> bool:
        """Whether the grant reaches something of this owner."""
        return not self.own or same(self.principal, owner)


class GrantExpired(Refused):
    """Everything is right except the time: ask auth for a fresh decision about `claims.principal`."""

    def __init__(self, claims: GrantClaims, why: str = "") -> None:
        words = why or f"expired at {claims.expires_at.isoformat()}"
        super().__init__(f"the grant {claims.id} {words}", code="grant_expired")
        self.claims = claims


class GrantSuspended(GrantExpired):
    """Who asked for it is suspended since: as with an expired one, auth decides afresh, and says why not."""

    def __init__(self, claims: GrantClaims) -> None:
        super().__init__(claims, "was given to somebody who is suspended now")


@dataclass(frozen=True, slots=True)
class ReadGrant:
    """Who asks, and their verbs by VO; `platform_verbs` hold everywhere."""

    principal: Principal
    memberships: Mapping[str, frozenset[str]]
    platform_verbs: frozenset[str]
    expires_at: datetime
    client: str = ""
    token_id: str = ""

    def may(self, verb: str, vo: str) -> bool:
        """Whether the asker has this verb in this VO, or everywhere."""
        return verb in self.platform_verbs or verb in self.memberships.get(vo, frozenset())


@dataclass(frozen=True, slots=True)
class _Checked:
    """A command grant whose signature this key made, and what it says."""

    token: jws.Compact
    key: OKPKey
    claims: GrantClaims


def same(one: Principal, other: Principal) -> bool:
    """Whether both are the same principal; names are for people only."""
    return one.issuer == other.issuer and one.subject == other.subject


class GrantVerifier:
    """Checks grants with the keys that auth publishes. `fetch_keys` gives its JWKS document or raises Unavailable.

    With `trust`, the grants of who is suspended are good no more, seconds after the suspension.
    """

    def __init__(
        self, fetch_keys: Callable[[], Awaitable[dict[str, Any]]], clock: Clock, *, times: KeyTimes = _TIMES,
        trust: TrustWatch | None = None,
    ) -> None:  # fmt: skip
        async def keys() -> dict[str, OKPKey]:
            return grant_keys(await fetch_keys())

        self._ring: KeyRing[OKPKey] = KeyRing("auth", keys, clock, times)
        self._clock = clock
        self._trust = trust
        self._read: OrderedDict[bytes, ReadGrant] = OrderedDict()
        self._commands: OrderedDict[str, _Checked] = OrderedDict()

    async def verify_command(self, message: Message, decoded: codec.Decoded | None = None) -> GrantClaims:
        """The claims of a command's grant, when it covers exactly this message and says the same as its body.

        `decoded`: the message, for whom it is decoded already.
        Raises GrantInvalid, GrantExpired (all right but the time), GrantSuspended, codec.Undecodable, or Unavailable
        when the keys cannot be had: then nothing is known yet, try again.
        """
        claims = await self._command_claims(message.headers.get(GRANT_HEADER, ""))
        _check_binding(claims, message)
        _check_meaning(claims, (decoded or codec.decode(message)).content)
        self._check_not_early(claims.issued_at)
        if self._clock() >= claims.expires_at:
            raise GrantExpired(claims)
        if await self._is_suspended(claims.principal, claims.client, claims.token_id):
            raise GrantSuspended(claims)
        return claims

    async def verify_read(self, grant: str) -> ReadGrant:
        """The asker behind a read grant. Raises GrantInvalid, Refused (`grant_expired`) or Unavailable."""
        digest = hashlib.sha256(grant.encode(errors="replace")).digest()
        known = self._read.get(digest)
        if known is None:
            token = _of_kind(grant, READ_GRANT)
            _signed_with(await self._ring.get(token.kid), token)
            known = _read_grant(token.unverified, self._check_not_early)
            self._read[digest] = known
            while len(self._read) > _REMEMBERED:
                self._read.popitem(last=False)
        if self._clock() >= known.expires_at:
            self._read.pop(digest, None)
            raise Refused("the read grant has expired", code="grant_expired")
        if await self._is_suspended(known.principal, known.client, known.token_id):
            raise GrantInvalid("who asks is suspended")
        return known

    async def _command_claims(self, grant: str) -> GrantClaims:
        """What auth has signed there. A signature that others came with is not checked again, as long as its key is
        published unchanged.
        """
        known = self._commands.get(grant)
        token = known.token if known else _of_kind(grant, COMMAND_GRANT)
        key = await self._ring.get(token.kid)
        if known is None or key is not known.key:
            known = self._commands[grant] = _Checked(token, _signed_with(key, token), granted_claims(grant))
            while len(self._commands) > _SHARED:
                self._commands.popitem(last=False)
        return known.claims

    async def _is_suspended(self, principal: Principal, client: str, token_id: str) -> bool:
        if self._trust is None:
            return False
        return (await self._trust.current()).access(principal, client, token_id, self._clock()) is not None

    async def ready(self) -> None:
        """Return when keys are at hand; raise Unavailable with the culprit."""
        await self._ring.refresh()

    def _check_not_early(self, issued_at: datetime) -> None:
        if issued_at > self._clock() + _SKEW:
            raise GrantInvalid("the grant was issued in the future: check the clocks")


def keys_of(auth: Questions) -> Callable[[], Awaitable[dict[str, Any]]]:
    """How a service fetches auth's keys: `GrantVerifier(keys_of(questions_to_auth), clock)`."""

    async def fetch() -> dict[str, Any]:
        try:
            return jws.strict_json(await auth.fetch("/.well-known/jwks.json"), 4, "the key set")
        except (jws.Malformed, Refused) as error:
            raise Unavailable(f"auth does not give its keys: {error}") from error

    return fetch


def grant_keys(document: Mapping[str, Any]) -> dict[str, OKPKey]:
    """The Ed25519 signing keys of a JWKS document by `kid`; others are left out. Raises Unavailable for nonsense."""
    found: dict[str, OKPKey] = {}
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise Unavailable("auth answered with something that is not a key set")
    for entry in entries:
        if entry.get("kty") == "OKP" and entry.get("crv") == "Ed25519" and entry.get("use", "sig") == "sig":
            try:
                found[str(entry["kid"])] = OKPKey.import_key({name: entry[name] for name in ("kty", "crv", "x", "kid")})
            except (KeyError, ValueError, JoseError) as error:
                raise Unavailable(f"auth published a broken key: {error}") from error
    return found


@lru_cache(maxsize=_SHARED)
def granted_claims(grant: str) -> GrantClaims:
    """The claims of a command grant that `verify_command` has passed, without checking it again. Read once for all that
    come with it.

    For handlers behind an authorised consumer; never for anything that comes from outside.
    """
    return claims_of(_parsed(grant).unverified)


def claims_of(payload: Mapping[str, Any]) -> GrantClaims:
    """The claims as values. Raises GrantInvalid when one is missing or of another type."""
    try:
        return GrantClaims(
            id=_string(payload, "jti"),
            principal=_subject(payload),
            verb=_string(payload, "verb"),
            vo=None if payload["vo"] is None else _string(payload, "vo"),
            own=payload["own"] is not False,
            message_type=_string(payload, "message_type"),
            content_type=_string(payload, "content_type"),
            bodies=_bodies(payload["body_sha256"]),
            issued_at=_moment(payload, "iat"),
            expires_at=_moment(payload, "exp"),
            client=str(payload.get("client", "")),
            token_id=str(payload.get("token", "")),
            policy=str(payload.get("policy", "")),
            demand_sha256=str(payload.get("demand_sha256", "")),
            workload=WorkloadIdentity.model_validate(payload["workload"]) if "workload" in payload else None,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise GrantInvalid(f"the grant lacks or misspells a claim: {error}") from error


def _check_binding(claims: GrantClaims, message: Message) -> None:
    if hashlib.sha256(message.body).hexdigest() not in claims.bodies:
        raise GrantInvalid("the grant is for another body")
    if claims.message_type != message.type or claims.content_type != message.content_type:
        raise GrantInvalid(f"the grant is for {claims.message_type}, not for {message.type}")


def _check_meaning(claims: GrantClaims, content: object) -> None:
    """Auth signs a digest and never reads a body: here the two are held side by side."""
    if not isinstance(content, Command):
        raise GrantInvalid("only commands are granted")
    acting, vo = _acting(content)
    if claims.verb != content.verb:
        raise GrantInvalid(f"the grant is for {claims.verb}, the command needs {content.verb}")
    if not same(acting, claims.principal):
        raise GrantInvalid("the command names another principal than its grant")
    if vo != claims.vo:
        raise GrantInvalid("the command names another VO than its grant")
    if claims.demand_sha256 and not _demands(content, claims.demand_sha256):
        raise GrantInvalid("the job asks for something else than what was judged")


def _acting(command: Command) -> tuple[Principal, str | None]:
    match command:
        case SubmitJob():
            return command.owner, command.spec.vo
        case CancelJob():
            return command.requested_by, command.vo
        case ReportProgress():
            return command.reported_by, command.vo
        case CordonSite() | UncordonSite():
            return command.requested_by, None
    raise GrantInvalid(f"no rule says who acts in {type(command).__name__}: add it to shared/runtime/tokens.py")


def _demands(command: Command, digest: str) -> bool:
    return isinstance(command, SubmitJob) and hmac.compare_digest(demand_of(command.spec).digest(), digest)


def _read_grant(payload: Mapping[str, Any], check_not_early: Callable[[datetime], None]) -> ReadGrant:
    try:
        check_not_early(_moment(payload, "iat"))
        return ReadGrant(
            principal=_subject(payload),
            memberships={vo: frozenset(verbs) for vo, verbs in payload["memberships"].items()},
            platform_verbs=frozenset(payload["platform_verbs"]),
            expires_at=_moment(payload, "exp"),
            client=str(payload.get("client", "")),
            token_id=str(payload.get("token", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise GrantInvalid(f"the read grant lacks or misspells a claim: {error}") from error


def _of_kind(grant: str, kind: str) -> jws.Compact:
    """A well-formed grant of this type that names its key. Nothing in it is believed yet."""
    if not grant:
        raise GrantInvalid("there is no grant")
    token = _parsed(grant)
    if token.header.get("typ") != kind:
        raise GrantInvalid(f"the grant is of another type than {kind}")
    if token.algorithm != ALGORITHM or not token.kid:
        raise GrantInvalid(f"the grant is not signed with {ALGORITHM} and a named key")
    return token


def _signed_with(key: OKPKey | None, token: jws.Compact) -> OKPKey:
    """The key, when it made the signature of a grant that is auth's for this platform."""
    if key is None or not jws.verify(token, key, ALGORITHM):
        raise GrantInvalid("the signature of the grant is not auth's")
    if token.unverified.get("iss") != ISSUER or token.unverified.get("aud") != AUDIENCE:
        raise GrantInvalid("the grant is not auth's for this platform")
    return key


def _parsed(grant: str) -> jws.Compact:
    try:
        return jws.parse(grant, most_bytes=MOST_GRANT_BYTES)
    except jws.Malformed as error:
        raise GrantInvalid(f"the grant is malformed: {error}") from error


def _subject(payload: Mapping[str, Any]) -> Principal:
    """RFC 9493, format `iss_sub`."""
    subject = payload["sub_id"]
    if subject["format"] != "iss_sub":
        raise ValueError("sub_id")
    return Principal(
        issuer=_string(subject, "iss"), subject=_string(subject, "sub"), name=str(payload.get("name") or "")
    )


def _string(payload: Mapping[str, Any], name: str) -> str:
    value = payload[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _bodies(claim: object) -> tuple[str, ...]:
    """One digest, or several: as with `aud` (RFC 7519), one stands by itself."""
    bodies = claim if isinstance(claim, list) else [claim]
    if not all(isinstance(each, str) for each in bodies):
        raise TypeError("body_sha256")
    return tuple(bodies)


def _moment(payload: Mapping[str, Any], name: str) -> datetime:
    value = payload[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(name)
    return datetime.fromtimestamp(value, UTC)
