"""`make up` and `serai login`, as a newcomer types it: the link, the page, the sign-in, in every mode of the issuer."""

import asyncio
import json
from pathlib import Path

import httpx2
import pytest

from tests.system.processes import Up, first_line, line_with, run, started

PORT = 18_500


@pytest.mark.parametrize(("mode", "vos"), [
    ("rfc9068", {"vo.climate.example": "observer", "vo.bio.example": "member"}),
    ("keycloak", {"vo.climate.example": "observer", "vo.bio.example": "member"}),
    ("egi", {"vo.climate.example": "observer", "vo.bio.example": "member"}),
    ("wlcg", {"vo.climate.example": "observer"}),
])  # fmt: skip
async def test_a_newcomer_signs_in_with_link_and_page(folder: Path, mode: str, vos: dict[str, str]) -> None:
    words = ("serai-platform", "up", "--data", str(folder / "data"), "--port", str(PORT))
    async with started(*words, folder=folder, SERAI_DEV_ISSUER_MODE=mode) as process:
        here = Up(process, folder, await first_line(process))
        async with here.follow("login") as login:
            link = (await line_with(login.stderr, "/device?user_code=")).strip()
            await allow(link, "bob")
            async with asyncio.timeout(20):
                _, err = await login.communicate()
            assert login.returncode == 0, err.decode()
        me = json.loads((await here.serai("whoami", "-o", "json")).out)
        assert {each["vo"]: each["role"] for each in me["memberships"]} == vos
        checked = await run("serai-platform", "issuers", "check", str(here.first["issuer"]), folder=folder)
        assert checked.code == 1 and "development: true" in checked.out and "`serai login`: yes" in checked.out
        assert "signed out" in (await here.serai("logout")).err
        assert (await here.serai("whoami")).code == 77


async def allow(link: str, user: str) -> None:
    """What a person does on the page."""
    async with httpx2.AsyncClient(trust_env=False) as browser:
        assert user in (await browser.get(link)).text
        code = httpx2.URL(link).params["user_code"]
        form = {"user_code": code, "user": user, "answer": "allow"}
        assert (await browser.post(link.partition("?")[0], data=form)).status_code == 200
