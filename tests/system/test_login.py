"""`make up` and `serai login`, as a newcomer types it: the link, the page, the sign-in, in every mode of the issuer."""

import asyncio
import json
import shutil
from pathlib import Path

import httpx2
import pytest

from tests.pacing import pause
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


async def allow(link: str, user: str) -> None:
    """What a person does on the page."""
    async with httpx2.AsyncClient(trust_env=False) as browser:
        assert user in (await browser.get(link)).text
        code = httpx2.URL(link).params["user_code"]
        form = {"user_code": code, "user": user, "answer": "allow"}
        assert (await browser.post(link.partition("?")[0], data=form)).status_code == 200


async def test_a_shell_completes_commands_and_options(folder: Path) -> None:
    """As bash asks through what `serai` prints for it."""
    shown = await run("serai", folder=folder, _SERAI_COMPLETE="source_bash")
    assert shown.code == 0 and "complete" in shown.out
    for words, found in (("serai lo", {"login", "logout", "logs"}), ("serai login --no", {"--no-browser"})):
        asked = {"_SERAI_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        assert set((await run("serai", folder=folder, **asked)).out.split()) == found


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
async def test_a_shell_that_completes_nothing_is_told_what_to_type(folder: Path, option: str) -> None:
    said = await run("sh", "-c", f"serai {option}; exit $?", folder=folder)
    assert said.code == 64 and "Shell sh" in said.told and "`_SERAI_COMPLETE=source_bash serai`" in said.told


async def test_a_token_from_standard_input_is_kept_and_a_wrong_one_is_not(folder: Path) -> None:
    words = ("serai-platform", "up", "--data", str(folder / "data"), "--port", str(PORT))
    async with started(*words, folder=folder) as process:
        here = Up(process, folder, await first_line(process))
        empty = await here.serai("login", "--token-stdin")
        assert empty.code == 78 and "standard input holds no token" in empty.told
        async with httpx2.AsyncClient(trust_env=False) as http:
            said = await http.post(f"{here.first['issuer']}/demo/token", data={"user": "bob"})
        script = f"echo '{said.json()['access_token']}' | serai login --token-stdin"
        told = await run("sh", "-c", script, folder=folder, SERAI_URL=here.gateway)
        assert told.code == 0 and "as Bob Baker" in told.err
        assert (await here.serai("whoami")).code == 0
        checked = await run("serai-platform", "issuers", "check", str(here.first["issuer"]), folder=folder)
        assert checked.code == 1 and "development: true" in checked.out and "`serai login`: yes" in checked.out
        wrong = await run("sh", "-c", "echo no.real.token | serai login --token-stdin", folder=folder,
                          SERAI_URL=here.gateway)  # fmt: skip
        assert wrong.code == 77 and (await here.serai("whoami")).code == 0, "the good one is kept"


@pytest.mark.skipif(shutil.which("oidc-gen") is None, reason="oidc-agent is not on PATH")
async def test_a_running_oidc_agent_is_asked(folder: Path) -> None:
    """The agent that this community uses: it holds the refresh token, we get access tokens."""
    words = ("serai-platform", "up", "--data", str(folder / "data"), "--port", str(PORT))
    socket, agent = folder / "agent.sock", ("oidc-agent", "--console", "--no-autoload")
    async with started(*words, folder=folder) as process:
        here = Up(process, folder, await first_line(process))
        issuer = str(here.first["issuer"])
        async with started(*agent, f"--socket-path={socket}", folder=folder):
            await appears(socket)
            sock = {"OIDC_SOCK": str(socket)}
            refused = await here.serai("whoami", **sock)
            assert refused.code == 77 and f"oidc-agent gives no token for {issuer}: account not loaded" in refused.told
            assert "oidc-add" in refused.told
            made = await run(*await account(issuer, folder), folder=folder, **sock)
            assert made.code == 0, made.told
            for more in ({}, {"SERAI_OIDC_ACCOUNT": "demo"}):
                told = await here.serai("whoami", **sock, **more)
                assert told.code == 0 and "Alice" in told.out and "by the token of oidc-agent" in told.err


async def account(issuer: str, folder: Path) -> tuple[str, ...]:
    """The command with which a person loads an account of the issuer into the agent."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        form = {"user": "alice", "scope": "offline_access"}
        refresh = (await http.post(f"{issuer}/demo/token", data=form)).json()["refresh_token"]
    (folder / "password").write_text("a-password\n")
    return (
        "oidc-gen", "demo", "--manual", f"--issuer={issuer}", "--client-id=serai-cli", "--client-secret=",
        f"--rt={refresh}", "--scope=openid offline_access", f"--pw-file={folder / 'password'}", "--no-url-call",
        "--redirect-url=http://localhost:4242",
    )  # fmt: skip


async def appears(path: Path, deadline_s: float = 10) -> None:
    """Return when something has made the file."""
    async with asyncio.timeout(deadline_s):
        while not _there(path):
            await pause(0.05)


def _there(path: Path) -> bool:
    return path.exists()


BACKEND = """
import json, pathlib
from keyring.backend import KeyringBackend

class InFile(KeyringBackend):
    priority = 1
    file = pathlib.Path(__file__).with_name("secrets.json")

    def _all(self):
        return json.loads(self.file.read_text()) if self.file.exists() else {}

    def get_password(self, service, username):
        return self._all().get(service + " " + username)

    def set_password(self, service, username, password):
        self.file.write_text(json.dumps(self._all() | {service + " " + username: password}))

    def delete_password(self, service, username):
        self.file.write_text(json.dumps({k: v for k, v in self._all().items() if k != service + " " + username}))
"""


async def test_the_keyring_that_the_user_has_chosen_is_used(folder: Path) -> None:
    """Through the keyring library's own choice of a backend, as a desktop's comes to it."""
    (folder / "desktop.py").write_text(BACKEND)
    desktop = {"SERAI_KEYRING": "on", "PYTHON_KEYRING_BACKEND": "desktop.InFile", "PYTHONPATH": str(folder)}
    words = ("serai-platform", "up", "--data", str(folder / "data"), "--port", str(PORT))
    async with started(*words, folder=folder) as process:
        here = Up(process, folder, await first_line(process))
        told = await here.serai("login", "--user", "alice", **desktop)
        assert told.code == 0 and "kept in your keyring" in told.err
        file, secrets = folder / "config" / "tokens.json", folder / "secrets.json"
        assert "refresh_token" not in file.read_text() and "refresh_token" in secrets.read_text()
        assert (await here.serai("whoami", **desktop)).code == 0
        assert (await here.serai("logout", **desktop)).code == 0 and json.loads(secrets.read_text()) == {}
