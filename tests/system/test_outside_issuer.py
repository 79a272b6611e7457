"""Signing in at an issuer that others wrote and certified (oidc-provider): people, service accounts, keys, refusals."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.auth.bad_token import BadToken
from services.auth.claims import Presented
from services.auth.claims_source import ClaimsSource, Freshness, Limits
from services.auth.issuer_http import IssuerHttp
from services.auth.issuers import Issuer
from shared.runtime.clock import system_clock
from tests.pacing import pause
from tests.system.outside_issuer.provider import (
    AUDIENCE,
    CLIMATE,
    SECRET,
    Browser,
    Outside,
    outside,
)
from tests.system.processes import Ended, Up, first_line, line_with, run, started

PORT = 18_400


@asynccontextmanager
async def platform(folder: Path, issuer: Outside, **more: str) -> AsyncIterator[Up]:
    """A platform that trusts the issuer beside its own."""
    words = ("serai-platform", "up", "--data", str(folder / "data"), "--port", str(PORT))
    async with started(*words, folder=folder, **issuer.trusted(), **more) as process:
        yield Up(process, folder, await first_line(process))


async def sign_in(here: Up, issuer: Outside, user: str) -> Ended:
    """`serai login` in one window, the issuer's pages in the other."""
    words = ("serai", "login", "--issuer", "Outside", "--no-browser")
    told = {"SERAI_URL": here.gateway, "SSL_CERT_FILE": str(issuer.ca)}
    async with started(*words, folder=here.folder, **told) as process:
        link = (await line_with(process.stderr, f"{issuer.url}/device?user_code=")).strip()
        assert "Sign-in Success" in await Browser(issuer, user).allow(link)
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())


def kept(here: Up) -> dict[str, Any]:
    return dict(json.loads((here.folder / "config" / "tokens.json").read_text()))


def keep(here: Up, entries: dict[str, Any]) -> None:
    (here.folder / "config" / "tokens.json").write_text(json.dumps(entries))


def expired(entries: dict[str, Any]) -> dict[str, Any]:
    """The same, but that the access tokens' time is over."""
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    return {url: {**entry, "expires_at": past} for url, entry in entries.items()}


async def test_a_person_signs_in_works_stays_signed_in_and_signs_out(folder: Path) -> None:
    async with outside(folder) as issuer, platform(folder, issuer) as here:
        ca = {"SSL_CERT_FILE": str(issuer.ca)}
        told = await sign_in(here, issuer, "carla")
        assert told.code == 0, told.told
        assert f"VOs: {CLIMATE} (member)" in told.err
        me = json.loads((await here.serai("whoami", "-o", "json")).out)
        assert me["principal"]["issuer"] == issuer.url and me["principal"]["subject"] == "carla"
        ran = await here.serai("run", "--vo", CLIMATE, "--", "echo", "from outside", deadline_s=60)
        assert (ran.code, "from outside" in ran.out) == (0, True), ran.told

        first = kept(here)
        keep(here, expired(first))
        assert (await here.serai("whoami", **ca)).code == 0
        second = kept(here)
        assert second[here.gateway]["refresh_token"] != first[here.gateway]["refresh_token"], "renewed, and rotated"

        keep(here, expired(first))
        reused = await here.serai("whoami", **ca)
        assert reused.code == 77 and f"your sign-in at {issuer.url} has ended" in reused.err
        keep(here, expired(second))
        assert (await here.serai("whoami", **ca)).code == 77, "the issuer ended the whole family, as certified"

        assert (await sign_in(here, issuer, "carla")).code == 0
        before = kept(here)
        assert "signed out" in (await here.serai("logout", **ca)).err
        keep(here, expired(before))
        assert (await here.serai("whoami", **ca)).code == 77, "signed out at the issuer too"


async def test_a_command_outlives_its_token(folder: Path) -> None:
    """The job takes longer than a token lives; following it needs several."""
    async with outside(folder, life_s=8) as issuer, platform(folder, issuer) as here:
        ca = {"SSL_CERT_FILE": str(issuer.ca)}
        assert (await sign_in(here, issuer, "carla")).code == 0
        words = ("run", "--vo", CLIMATE, "--", "sh", "-c", "sleep 20; echo awake")
        ran = await here.serai(*words, deadline_s=90, **ca)
        assert (ran.code, "awake" in ran.out) == (0, True), ran.told
        told = await here.serai("events", "last", **ca)
        assert told.code == 0 and "succeeded" in told.out


async def test_who_lacks_a_vo_or_a_role_is_told_which_and_whom_to_ask(folder: Path) -> None:
    async with outside(folder) as issuer, platform(folder, issuer) as here:
        observer = await sign_in(here, issuer, "otto")
        assert f"VOs: {CLIMATE} (observer)" in observer.err
        refused = await here.serai("run", "--vo", CLIMATE, "--", "true")
        assert refused.code == 77
        assert f"you are in VO {CLIMATE} as observer; submitting needs member" in refused.told
        assert "ask a manager of the VO" in refused.told
        nobody = await sign_in(here, issuer, "nora")
        assert nobody.code == 0 and "You are in no VO that this platform knows of" in nobody.told
        refused = await here.serai("run", "--vo", CLIMATE, "--", "true")
        assert refused.code == 77 and "you are not in the VO" in refused.told


async def test_tokens_of_service_accounts_are_taken_when_they_are_for_us(folder: Path) -> None:
    (folder / "stranger").mkdir()
    soon = {"SERAI_AUTH_KEY_COOL_DOWN_S": "0.1"}
    async with (
        outside(folder) as issuer,
        outside(folder / "stranger") as stranger,
        platform(folder, issuer, **soon) as here,
    ):

        async def whoami(token: str) -> Ended:
            return await here.serai("whoami", "-o", "json", SERAI_TOKEN=token)

        mine = await whoami(await issuer.robots_token())
        assert mine.code == 0 and json.loads(mine.out)["memberships"][0]["vo"] == CLIMATE
        others = await whoami(await issuer.robots_token("https://another.example"))
        assert others.code == 77 and "aud" in others.told
        assert (await whoami(await issuer.robots_token(None))).code == 77, "an opaque token says nothing to us"
        untrusted = await whoami(await stranger.robots_token())
        assert untrusted.code == 77 and "issuer" in untrusted.told, "the same subject and audience, at another issuer"
        named = await here.serai("login", "--issuer", stranger.url)
        assert named.code == 77 and "takes no tokens of" in named.told

        old, unused = await issuer.robots_token(), await issuer.robots_token()
        await issuer.rotate(keep=True)
        await pause(0.2)
        assert (await whoami(await issuer.robots_token())).code == 0, "a new key is found"
        assert (await whoami(old)).code == 0, "and the old one still counts while it is published"
        await issuer.rotate(keep=False)
        await pause(0.2)
        assert (await whoami(await issuer.robots_token())).code == 0
        assert (await whoami(unused)).code == 77, "a key that was withdrawn signs nothing"


# -- what the operator sees ---------------------------------------------------------------------------------------


async def check(folder: Path, url: str, entry: dict[str, Any] | None) -> Ended:
    """`serai-platform issuers check`, with a file of issuers."""
    file = folder / "checked.yaml"
    file.write_text(json.dumps({"issuers": [entry] if entry else []}))
    return await run("serai-platform", "issuers", "check", url, "--file", str(file), folder=folder)


async def test_an_operator_sees_what_it_offers_and_what_is_missing(folder: Path) -> None:
    async with outside(folder) as issuer:
        good = await check(folder, issuer.url, issuer.entry())
        assert good.code == 0, good.told
        for words in ("trusted as Outside", "device/auth", "token/introspection", "key-0", "entitlements"):
            assert words in good.out
        slash = await check(folder, f"{issuer.url}/", issuer.entry())
        assert slash.code == 1 and "write it exactly" in slash.told
        no_ca = await check(folder, issuer.url, issuer.entry(ca_file=None))
        assert no_ca.code == 1 and "ca_file" in no_ca.told
        algorithm = await check(folder, issuer.url, issuer.entry(algorithms=["RS256"]))
        assert algorithm.code == 1 and "ES256" in algorithm.told
        userinfo = await check(folder, issuer.url, issuer.entry(claims_from="userinfo"))
        assert userinfo.code == 0, userinfo.told


async def test_our_userinfo_and_introspection_questions_are_understood(folder: Path) -> None:
    """Its opaque tokens are good there; its JWTs are not, which EGI's are."""
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    async with outside(folder) as issuer:
        opaque = await persons_token(issuer, "carla")
        entry = issuer.entry(claims_from="introspection", client_id="robot", client_secret_file=str(folder / "secret"))
        async with issuer.http() as http:
            form, secret = {"token": opaque}, ("robot", SECRET)
            ends = (await http.post(f"{issuer.url}/token/introspection", data=form, auth=secret)).json()["exp"]
        said = await claims(entry, opaque, said_of("carla", ends=ends))
        assert said["active"] is True and said["sub"] == "carla"
        for other in (said_of("mallory", ends=ends), said_of("carla", "robot", ends), said_of("carla", ends=ends + 1)):
            with pytest.raises(BadToken, match="contradicts"):
                await claims(entry, opaque, other)
        with pytest.raises(BadToken, match="not active"):
            await claims(entry, "unknown", said_of("carla"))
        userinfo = issuer.entry(claims_from="userinfo")
        told = await claims(userinfo, await persons_token(issuer, "carla"), said_of("carla"))
        assert told["sub"] == "carla" and CLIMATE in told["entitlements"][0]
        with pytest.raises(BadToken, match="speaks of somebody else"):
            await claims(userinfo, await persons_token(issuer, "carla"), said_of("mallory"))
        with pytest.raises(BadToken, match="refuses it"):
            await claims(userinfo, await issuer.robots_token(AUDIENCE), said_of("robot", "robot"))


def said_of(user: str, client: str = "serai-cli", ends: float = 0) -> Presented:
    return Presented(user, client, "an-id", ends, None)


async def claims(entry: dict[str, Any], token: str, said: Presented) -> dict[str, Any]:
    """The platform's own question about a token."""
    trusted = Issuer.model_validate(entry)
    http = IssuerHttp(trusted)
    day = timedelta(days=1)
    source = ClaimsSource(trusted, http, system_clock, Freshness(day, day, day), Limits(5, 4))
    try:
        return dict(await source.claims(token, said, change=False))
    finally:
        await http.close()


async def persons_token(issuer: Outside, user: str) -> str:
    """An opaque token for userinfo, by device flow."""
    async with issuer.http() as http:
        begun = (
            await http.post(
                f"{issuer.url}/device/auth", data={"client_id": "serai-cli", "scope": "openid entitlements"}
            )
        ).json()
        await Browser(issuer, user).allow(begun["verification_uri_complete"])
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": begun["device_code"],
            "client_id": "serai-cli",
        }  # fmt: skip
        return str((await http.post(f"{issuer.url}/token", data=form)).json()["access_token"])
