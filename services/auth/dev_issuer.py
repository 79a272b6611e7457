"""A development issuer: real tokens (RFC 9068) for demo users, for the asking, on this machine only.

Any OpenID Connect issuer could take its place: auth reads its discovery document and keys like those of others. It
has its own settings, port and key, refuses to start anywhere but on loopback, answers loopback only, and auth refuses
it unless `SERAI_AUTH_DEV_MODE` is set. It can stand for Keycloak, EGI Check-in or a WLCG issuer (`dev_tokens.py`).
People sign in by device flow (`dev_devices.py`, `dev_page.py`) and stay signed in by refresh tokens (`dev_refresh.py`).
Called by the embedded platform.
"""

import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2 as httpx
import orjson
import uuid6
from authlib.oauth2.rfc6749 import errors as oauth
from authlib.oauth2.rfc6749.util import extract_basic_authorization
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.auth import dev_sign_in, dev_tokens
from services.auth.demo_users import DEMO_USERS, SERVICE_ACCOUNT, DemoUser
from services.auth.dev_devices import Allowed, Devices
from services.auth.dev_forms import NO_STORE, form_of, oauth_refusal, user_named
from services.auth.dev_refresh import Families
from services.auth.dev_tokens import CLI, Mode, trusted_as
from services.auth.issuers import is_loopback
from services.auth.loopback import LoopbackOnly
from services.auth.private_file import write_private
from shared.errors import Misconfigured, NotFound, Unavailable
from shared.ports import Clock
from shared.runtime.http import install_health, install_problems
from shared.runtime.service import Service
from shared.runtime.tls import trusting_nobody

__all__ = ["CLI", "DEMO_USERS", "DevIssuerSettings", "assemble", "demo_token", "trusted_as"]

DEMO_GRANT: Final = "urn:serai:params:oauth:grant-type:demo"
"""Only a development issuer knows this grant type: a user's name is all it asks for."""
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
SCOPES: Final = ("openid", "profile", "offline_access", "entitlements")
OFFLINE: Final = "offline_access"
"""The scope that asks for a refresh token (OpenID Connect Core, 11)."""
_REGISTRY: Final = jws.JWSRegistry(algorithms=["ES256"])


class DevIssuerSettings(BaseSettings):
    """Where it is and how long its tokens live."""

    model_config = SettingsConfigDict(env_prefix="SERAI_DEV_ISSUER_", frozen=True, extra="forbid")

    url: str = Field(
        default="http://127.0.0.1:8081", description="Its issuer string and address; the host must be loopback."
    )
    key_file: Path = Field(
        default=Path("dev-issuer-key.json"), description="Private key, mode 0600; made if absent. Kept, so that tokens "
        "survive a restart."
    )  # fmt: skip
    token_life_s: int = Field(
        default=900, ge=10, le=dev_tokens.LONGEST_LIFE_S, description="Seconds that a token is good."
    )
    mode: Mode = Field(
        default="rfc9068", description="Whose tokens it imitates: `rfc9068`, `keycloak` (realm roles), `egi` "
        "(memberships at userinfo and introspection only), `wlcg` (groups of one VO)."
    )  # fmt: skip
    client_secret: SecretStr = Field(
        default=SecretStr("demo-workflow-secret"), description="Secret of the demo service account `demo-workflow`. "
        "It protects nothing: whoever reaches this issuer gets any demo user's token anyway."
    )  # fmt: skip


def assemble(settings: DevIssuerSettings, *, clock: Clock) -> Service:
    """The issuer, ready to be served at the host and port of `settings.url`. Raises Misconfigured elsewhere."""
    parts = urlsplit(settings.url)
    if parts.scheme != "http" or not is_loopback(parts.hostname or "") or parts.path not in ("", "/"):
        raise Misconfigured(
            f"the development issuer gives tokens to anybody and runs on loopback only, not at {settings.url}: "
            "set SERAI_DEV_ISSUER_URL to http://127.0.0.1:<port>"
        )
    app = FastAPI(
        title="Serai development issuer", redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None
    )
    install_problems(app)
    families = Families(settings.key_file.with_name(f"{settings.key_file.stem}-sign-ins.json"))
    _Issuer(settings, kept_key(settings.key_file), families, clock).install(app)
    service = Service("dev-issuer", LoopbackOnly(app))
    install_health(app, service)
    return service


def kept_key(file: Path) -> ECKey:
    """The key in a file that only its owner can read, made if there is none. Raises Misconfigured."""
    try:
        if not file.exists():
            write_private(file, orjson.dumps(ECKey.generate_key("P-256").as_dict(private=True)))
        if file.stat().st_mode & 0o077:
            raise Misconfigured(f"{file} can be read by others: chmod 600 it, or delete it and tokens become void")
        return ECKey.import_key(orjson.loads(file.read_bytes()))
    except (OSError, ValueError, JoseError) as error:
        raise Misconfigured(f"the key of the development issuer in {file} cannot be used: {error}") from error


class _Issuer:
    """Its routes. Errors of the token endpoint are OAuth's (RFC 6749, 5.2), others are problem documents."""

    def __init__(self, settings: DevIssuerSettings, key: ECKey, families: Families, clock: Clock) -> None:
        self._url = settings.url
        self._life_s = settings.token_life_s
        self._secret = settings.client_secret
        self._mode = settings.mode
        self._key = key
        self._kid = key.thumbprint()
        self._clock = clock
        self._families = families
        self._devices = Devices()
        self._revoked: dict[str, int] = {}

    def install(self, app: FastAPI) -> None:
        app.add_api_route("/.well-known/openid-configuration", self.discovery, methods=["GET"])
        app.add_api_route("/jwks.json", self.jwks, methods=["GET"])
        app.add_api_route("/token", self.token, methods=["POST"], response_model=None)
        app.add_api_route("/userinfo", self.userinfo, methods=["GET", "POST"], response_model=None)
        app.add_api_route("/introspect", self.introspect, methods=["POST"], response_model=None)
        app.add_api_route("/revoke", self.revoke, methods=["POST"], response_model=None)
        dev_sign_in.add_to(app, self._devices, self._url, self._clock)
        app.add_api_route("/demo/users", self.users, methods=["GET"])
        app.add_api_route("/demo/token", self.demo_token, methods=["POST"], response_model=None)

    async def discovery(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0 / RFC 8414, as far as there is something to tell."""
        base = self._url.rstrip("/")
        return {
            "issuer": self._url, "jwks_uri": f"{base}/jwks.json", "token_endpoint": f"{base}/token",
            "userinfo_endpoint": f"{base}/userinfo", "introspection_endpoint": f"{base}/introspect",
            "revocation_endpoint": f"{base}/revoke", "device_authorization_endpoint": f"{base}/device_authorization",
            "grant_types_supported": ["client_credentials", "refresh_token", DEVICE_GRANT, DEMO_GRANT],
            "response_types_supported": [],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "scopes_supported": list(SCOPES), "claims_supported": ["sub", "name", "entitlements"],
        }  # fmt: skip

    async def jwks(self) -> dict[str, Any]:
        """The public key (RFC 7517)."""
        return {"keys": [{**self._key.as_dict(private=False), "kid": self._kid, "use": "sig", "alg": "ES256"}]}

    async def userinfo(self, request: Request) -> Response:
        """Who is behind one of its tokens (OpenID Connect Core 5.3)."""
        user = self._behind(request.headers.get("authorization", "").removeprefix("Bearer "))
        if user is None:
            challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            return JSONResponse({"error": "invalid_token"}, status_code=401, headers=NO_STORE | challenge)
        return JSONResponse(dev_tokens.userinfo(user), headers=NO_STORE)

    async def introspect(self, request: Request) -> Response:
        """Whether one of its tokens is good, and whose it is (RFC 7662). Its service account may ask."""
        form = await form_of(request)
        try:
            self._check_secret(form, request.headers)
        except oauth.OAuth2Error as error:
            return oauth_refusal(error)
        token = form.get("token", "")
        user = self._behind(token) or user_named(self._families.user_of(token) or "")
        said = {"active": False} if user is None else {"active": True, "iss": self._url, **dev_tokens.userinfo(user)}
        return JSONResponse(said, headers=NO_STORE)

    async def revoke(self, request: Request) -> Response:
        """End a token (RFC 7009): a refresh token with its whole sign-in; an access token here, not where it was sent.

        A token that is none of ours is as ended as it can be: 200.
        """
        form = await form_of(request)
        try:
            client = self._client(form, request.headers)
        except oauth.OAuth2Error as error:
            return oauth_refusal(error)
        token = form.get("token", "")
        self._families.revoke(token, client)
        claims = self._claims_in(token)
        if claims is not None:
            now = self._clock().timestamp()
            self._revoked = {jti: exp for jti, exp in self._revoked.items() if exp > now} | {
                claims["jti"]: claims["exp"]
            }
        return Response(status_code=200, headers=NO_STORE)

    def _behind(self, token: str) -> DemoUser | None:
        """The user of an access token that this issuer has signed, that has not expired and is not revoked."""
        claims = self._claims_in(token)
        if claims is None or claims["jti"] in self._revoked:
            return None
        if "sid" in claims and not self._families.lives(claims["sid"]):
            return None
        return next((user for user in (*DEMO_USERS, SERVICE_ACCOUNT) if user.user == claims["sub"]), None)

    def _claims_in(self, token: str) -> dict[str, Any] | None:
        """The claims of an access token that this issuer has signed and that has not expired."""
        try:
            claims: dict[str, Any] = orjson.loads(jws.deserialize_compact(token, self._key, registry=_REGISTRY).payload)
        except (JoseError, ValueError):
            return None
        return claims if claims["exp"] > self._clock().timestamp() else None

    async def users(self) -> dict[str, Any]:
        """Who can be."""
        return {"users": [user.as_row() for user in DEMO_USERS], "token_endpoint": "/demo/token"}

    async def demo_token(self, request: Request) -> Response:
        """`user=alice` -> a token. The short way for the command line client and for curl."""
        form = await form_of(request)
        name = form.get("user", "")
        user = user_named(name)
        if user is None:
            known = ", ".join(each.user for each in DEMO_USERS)
            raise NotFound(f"there is no demo user {name[:40]!r}; send `user=` one of: {known}")
        return JSONResponse(self._answer(user, CLI, _scopes(form)), headers=NO_STORE)

    async def token(self, request: Request) -> Response:
        """The token endpoint: device codes, refresh tokens, `client_credentials` of the service account, demo users."""
        form = await form_of(request)
        try:
            return JSONResponse(self._granted(form, request.headers), headers=NO_STORE)
        except oauth.OAuth2Error as error:
            return oauth_refusal(error)

    def _granted(self, form: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, Any]:
        match form.get("grant_type"):
            case "client_credentials":
                self._check_secret(form, headers)
                return self._answer(SERVICE_ACCOUNT, SERVICE_ACCOUNT.user)
            case "refresh_token":
                return self._refreshed(form.get("refresh_token", ""), self._client(form, headers))
            case kind if kind == DEVICE_GRANT:
                return self._signed_in(form.get("device_code", ""), self._client(form, headers))
            case kind if kind == DEMO_GRANT:
                user = user_named(form.get("user", ""))
                if user is None:
                    raise oauth.InvalidGrantError("there is no such demo user")
                return self._answer(user, CLI, _scopes(form))
            case None | "":
                raise oauth.InvalidRequestError("grant_type is missing")
            case kind:
                raise oauth.UnsupportedGrantTypeError(str(kind)[:80])

    def _refreshed(self, token: str, client: str) -> dict[str, Any]:
        rotated = self._families.rotate(token, client, self._clock())
        user = user_named(rotated[0].user) if rotated else None
        if rotated is None or user is None:
            raise oauth.InvalidGrantError("the refresh token is unknown, too old, or was used before")
        family, further = rotated
        return self._tokens(user, client, family.id) | {"refresh_token": further}

    def _signed_in(self, device_code: str, client: str) -> dict[str, Any]:
        outcome = self._devices.asked(device_code, client, self._clock())
        if isinstance(outcome, Allowed):
            user = user_named(outcome.user)
            assert user is not None, "only demo users are offered"
            return self._answer(user, client, outcome.scopes)
        raise oauth.OAuth2Error(error=outcome)

    def _client(self, form: Mapping[str, str], headers: Mapping[str, str]) -> str:
        """Who asks: the public client by its name alone, the service account by its secret. Raises OAuth2Error."""
        if _credentials(form, headers) == (CLI, ""):
            return CLI
        self._check_secret(form, headers)
        return SERVICE_ACCOUNT.user

    def _check_secret(self, form: Mapping[str, str], headers: Mapping[str, str]) -> None:
        client, secret = _credentials(form, headers)
        right = hmac.compare_digest(secret.encode(), self._secret.get_secret_value().encode())
        if client != SERVICE_ACCOUNT.user or not right:
            raise oauth.InvalidClientError("unknown client or wrong secret")

    def _answer(self, user: DemoUser, client: str, scopes: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Tokens; with a refresh token when `offline_access` was asked for."""
        if OFFLINE not in scopes:
            return self._tokens(user, client, None)
        family, refresh = self._families.begin(user.user, client, self._clock())
        return self._tokens(user, client, family.id) | {"refresh_token": refresh}

    def _tokens(self, user: DemoUser, client: str, sign_in: str | None) -> dict[str, Any]:
        kind = dev_tokens.header_type(self._mode)
        token = sign_access_token(self._key, self._kid, self._claims(user, client, sign_in), kind)
        return {"access_token": token, "token_type": "Bearer", "expires_in": self._life_s, "user": user.user}

    def _claims(self, user: DemoUser, client: str, sign_in: str | None) -> dict[str, Any]:
        now = int(self._clock().timestamp())
        return {
            "iss": self._url, "iat": now, "exp": now + self._life_s, "jti": uuid6.uuid7().hex,
            **dev_tokens.access_claims(self._mode, user, client), **({"sid": sign_in} if sign_in else {}),
        }  # fmt: skip


def _credentials(form: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, str]:
    """A client and its secret, from the header or the form; some public clients send an empty one (oidc-agent)."""
    client, secret = extract_basic_authorization({"Authorization": headers.get("authorization")})
    return client or form.get("client_id", ""), secret or form.get("client_secret", "")


def _scopes(form: Mapping[str, str]) -> frozenset[str]:
    return frozenset(form.get("scope", "").split())


def sign_access_token(key: ECKey, kid: str, claims: Mapping[str, Any], kind: str = "at+jwt") -> str:
    """A JWS; of type `at+jwt` (RFC 9068) unless another family's is wanted."""
    header = {"alg": "ES256", "typ": kind, "kid": kid}
    return jws.serialize_compact(header, orjson.dumps(claims), key, registry=_REGISTRY)


async def demo_token(issuer: str, user: str, *, transport: httpx.AsyncBaseTransport | None = None) -> str:
    """An access token of a demo user from a running development issuer. Raises NotFound or Unavailable."""
    async with httpx.AsyncClient(
        base_url=issuer, transport=transport, timeout=5.0, trust_env=False, verify=trusting_nobody()
    ) as client:
        try:
            response = await client.post("/demo/token", data={"user": user})
        except httpx.HTTPError as error:
            raise Unavailable(f"the development issuer at {issuer} does not answer: {error!r}") from error
    if response.status_code == 404:
        raise NotFound(str(response.json().get("detail")))
    if response.status_code != 200:
        raise Unavailable(f"the development issuer at {issuer} answered {response.status_code}")
    return str(response.json()["access_token"])
