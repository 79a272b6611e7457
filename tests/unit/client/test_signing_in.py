"""`serai login`, `logout` and what lies between, against the real development issuer: words, files, what is sent."""

import json
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from serai import cli
from serai.cli.signing_in import may_open_browser
from tests.unit.client.builders import NOON, a_pace
from tests.unit.client.fake_gateway import event, frames, job_id, problem, sse
from tests.unit.client.issuing import GATEWAY, ISSUER, AnyToken, Network, PersonsTime, an_issuer

pytestmark = pytest.mark.fast

LIFE_S = 900


class World:
    """One machine: a home, a network, a clock and its user."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.time = PersonsTime()
        self.gateway = AnyToken()
        self.network = Network({8080: self.gateway.app, 8081: an_issuer(folder, self.time, token_life_s=LIFE_S)})
        self._capture = capture

    def serai(self, *args: str, does: Callable[[], Awaitable[None]] | None = None, **more: str) -> tuple[int, str, str]:
        """One command, later by as much as it sleeps; `does` happens while it waits for the first time."""
        self.time._does = does
        environment = {
            "SERAI_CONFIG_DIR": str(self.folder / "config"), "SERAI_URL": GATEWAY, "SERAI_KEYRING": "off",
            "TMPDIR": str(self.folder), **more,
        }  # fmt: skip
        code = cli.main(args, environment, self.network, a_pace(self.time))
        told = self._capture.readouterr()
        return code, told.out, told.err

    def kept(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "config" / "tokens.json").read_text()))

    async def answer(self, answer: str, user: str = "alice") -> None:
        """Somebody opens the link that the command showed, and decides."""
        code = next(form for _, url, form in reversed(self.network.asked) if url.endswith("/device_authorization"))
        assert code["client_id"] == "serai-cli"
        shown = self._capture.readouterr().err
        typed = next(word for word in shown.split() if len(word) == 9 and word[4] == "-" and word.isupper())
        async with httpx2.AsyncClient(transport=self.network, base_url=ISSUER) as browser:
            page = await browser.get("/device", params={"user_code": typed})
            assert typed in page.text and "<script" not in page.text
            await browser.post("/device", data={"user_code": typed, "user": user, "answer": answer})

    async def allow(self) -> None:
        await self.answer("allow")


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    return World(tmp_path, capsys)


# -- signing in ---------------------------------------------------------------------------------------------------


def test_login_shows_link_and_code_waits_and_keeps_the_sign_in_for_its_owner(world: World) -> None:
    code, out, err = world.serai("login", "--no-browser", does=world.allow)
    assert (code, out) == (0, "")
    assert "signed in at http://127.0.0.1:8080 as Alice; VOs: vo.climate.example (manager)" in err
    assert "config/tokens.json, which only you can read (SERAI_KEYRING is off)" in err
    file = world.folder / "config" / "tokens.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = world.kept()[GATEWAY]
    assert kept["refresh_token"] and kept["issuer"] == ISSUER and kept["client_id"] == "serai-cli"
    assert world.network.grants() == ["device_code"]
    assert world.serai("whoami")[0] == 0
    assert world.gateway.tokens()[-1] == kept["token"]


def test_link_and_code_come_before_the_waiting_and_without_a_terminal(world: World) -> None:
    seen: list[str] = []

    async def look() -> None:
        seen.append(world._capture.readouterr().err)

    code, _, err = world.serai("login", does=look)
    assert f"{ISSUER}/device?user_code=" in seen[0] and "good for 10 min" in seen[0]
    assert "serai login --user alice" in seen[0], "a demo user is told the short way"
    assert code == 77 and "the code has expired before anybody signed in with it" in err
    assert "next: begin again: `serai login`" in err


def test_with_json_the_link_is_data_for_another_program(world: World) -> None:
    shown: list[dict[str, Any]] = []

    async def take() -> None:
        told = world._capture.readouterr()
        shown.append(json.loads(told.out))
        async with httpx2.AsyncClient(transport=world.network, base_url=ISSUER) as browser:
            form = {"user_code": shown[0]["user_code"], "user": "bob", "answer": "allow"}
            await browser.post("/device", data=form)

    code, out, _ = world.serai("login", "-o", "json", does=take)
    assert code == 0 and json.loads(out)["principal"]["subject"] == "alice"
    assert shown[0]["verification_uri_complete"].startswith(f"{ISSUER}/device?user_code=")


@pytest.mark.parametrize(
    ("environment", "platform", "terminal", "opened"),
    [
        ({"DISPLAY": ":0"}, "linux", True, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True, True),
        ({}, "darwin", True, True),
        ({}, "linux", True, False),
        ({"DISPLAY": ":0"}, "linux", False, False),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}, "linux", True, False),
    ],
)
def test_a_browser_is_opened_only_where_somebody_would_see_it(
    environment: dict[str, str], platform: str, terminal: bool, opened: bool
) -> None:
    assert may_open_browser(environment, platform, terminal=terminal) is opened


def test_who_refuses_on_the_page_is_not_signed_in(world: World) -> None:
    code, _, err = world.serai("login", does=lambda: world.answer("refuse"))
    assert code == 77 and "refused on the issuer's page" in err
    assert not (world.folder / "config" / "tokens.json").exists()


def test_a_token_that_the_platform_does_not_take_is_not_kept(world: World) -> None:
    world.gateway.closed = True
    code, _, err = world.serai("login", does=world.allow)
    assert code == 77 and "no valid access token" in err
    assert not (world.folder / "config" / "tokens.json").exists()


def test_the_issuer_may_be_away_for_a_while_and_the_person_is_told(world: World) -> None:
    async def blink() -> None:
        await world.allow()
        world.network.away.add(8081)
        world.time._does = back

    async def back() -> None:
        world.network.away.clear()

    code, _, err = world.serai("login", does=blink)
    assert code == 0 and "trying again while the code is good" in err


def test_an_issuer_without_device_flow_is_told_with_what_to_do_instead(world: World) -> None:
    world.gateway.issuers = [{"issuer": "https://aai.example.org", "name": "Check-in"}]
    code, _, err = world.serai("login")
    assert code == 77 and "Check-in (https://aai.example.org)" in err and "export SERAI_TOKEN=" in err


def test_of_several_issuers_one_is_named(world: World) -> None:
    world.gateway.issuers.append({"issuer": "https://aai.example.org/", "name": "Check-in", "client_id": "x"})
    code, _, err = world.serai("login")
    assert code == 64 and "--issuer" in err and "Check-in (https://aai.example.org/)" in err
    assert world.serai("login", "--issuer", "nobody.example")[0] == 77
    assert world.serai("login", "--issuer", "127.0.0.1:8081", does=world.allow)[0] == 0


@pytest.mark.parametrize("issuer", ["http://aai.example.org", "ftp://127.0.0.1:8081"])
def test_nothing_is_sent_to_an_issuer_in_the_clear(world: World, issuer: str) -> None:
    world.gateway.issuers = [{"issuer": issuer, "name": "plain", "client_id": "x"}]
    code, _, err = world.serai("login")
    assert code == 69 and "not at an https address" in err
    assert all(url.startswith(GATEWAY) for _, url, _ in world.network.asked)


@pytest.mark.parametrize("words", [("login",), ("login", "--user", "alice")])
def test_a_gateway_elsewhere_gets_no_tokens_of_an_issuer_on_this_machine(world: World, words: tuple[str, ...]) -> None:
    """It could be anybody's, and the issuer that of a platform which runs here for ourselves."""
    code, _, err = world.serai(*words, SERAI_URL="https://gateway.example.org:8080")
    assert code == 77 and "is on this machine and the gateway is not" in err
    assert not [url for _, url, _ in world.network.asked if url.startswith(ISSUER)]


def test_an_issuer_whose_discovery_names_another_is_not_believed(world: World) -> None:
    world.gateway.issuers[0]["issuer"] = f"{ISSUER}/"
    code, _, err = world.serai("login")
    assert code == 69 and f"names another issuer: {ISSUER}" in err


def test_the_environments_token_wins_and_login_says_so(world: World) -> None:
    _, _, err = world.serai("login", "--user", "alice", SERAI_TOKEN="given")
    assert "SERAI_TOKEN is set and wins over this" in err
    world.serai("whoami", SERAI_TOKEN="given")
    assert world.gateway.tokens()[-1] == "given"


def test_who_is_in_no_vo_is_told_what_is_missing(world: World) -> None:
    world.gateway.memberships, world.gateway.issuers[0]["join_url"] = [], "https://registry.example.org/join"
    code, _, err = world.serai("login", "--user", "alice")
    assert code == 0 and "You are in no VO" in err and "take you in (https://registry.example.org/join)" in err
    assert "You are in no VO" in world.serai("whoami")[2]


# -- staying signed in --------------------------------------------------------------------------------------------


def test_an_expired_token_is_renewed_before_it_is_sent(world: World) -> None:
    world.serai("login", "--user", "alice")
    first = world.kept()[GATEWAY]
    world.time.now += LIFE_S
    assert world.serai("whoami")[0] == 0
    second = world.kept()[GATEWAY]
    assert world.network.grants() == ["refresh_token"]
    assert second["refresh_token"] != first["refresh_token"] and second["token"] != first["token"]
    assert world.gateway.tokens()[-1] == second["token"]
    world.serai("whoami")
    assert world.network.grants() == ["refresh_token"], "a good token is not renewed"


def test_a_token_that_the_gateway_refuses_is_renewed_and_the_request_sent_again(world: World) -> None:
    world.serai("login", "--user", "alice")
    first = world.kept()[GATEWAY]["token"]
    world.gateway.void.add(first)
    assert world.serai("whoami")[0] == 0
    assert world.gateway.tokens()[-2:] == [first, world.kept()[GATEWAY]["token"]]


def test_a_stream_goes_on_with_a_new_token(world: World) -> None:
    world.serai("login", "--user", "alice")
    world.gateway.void.add(world.kept()[GATEWAY]["token"])
    world.gateway.streams = [sse(frames(("1-1", event(1, "job.running")), end="final"))]
    code, out, _ = world.serai("events", "-f", job_id(1))
    assert code == 0 and "job.running" in out and world.network.grants() == ["refresh_token"]


def test_a_refusal_that_a_new_token_does_not_mend_is_told_after_one_try(world: World) -> None:
    world.serai("login", "--user", "alice")
    world.gateway.closed = True
    code, _, err = world.serai("whoami")
    assert code == 77 and "no valid access token" in err
    assert world.network.grants() == ["refresh_token"]


def test_a_refresh_token_that_was_used_elsewhere_ends_the_sign_in_in_clear_words(world: World) -> None:
    world.serai("login", "--user", "alice")
    stolen = world.kept()
    world.time.now += LIFE_S
    world.serai("whoami")
    (world.folder / "config" / "tokens.json").write_text(json.dumps(stolen))
    code, _, err = world.serai("whoami")
    assert code == 77 and f"your sign-in at {ISSUER} has ended" in err and "next: sign in again: `serai login`" in err
    asked = len(world.network.asked)
    world.serai("whoami")
    assert not [url for _, url, _ in world.network.asked[asked:] if url.startswith(ISSUER)], "a void token is not tried"


def test_an_issuer_that_is_away_does_not_stop_a_token_that_is_good(world: World) -> None:
    world.serai("login", "--user", "alice")
    world.network.away.add(8081)
    world.time.now += LIFE_S - 3
    assert world.serai("whoami")[0] == 0
    world.time.now += LIFE_S
    code, _, err = world.serai("whoami")
    assert code == 69 and "your sign-in cannot be renewed" in err and "try again when the issuer answers" in err
    world.network.away.clear()
    assert world.serai("whoami")[0] == 0, "nothing was lost"


# -- signing out --------------------------------------------------------------------------------------------------


def test_logout_ends_the_sign_in_here_and_at_the_issuer(world: World) -> None:
    world.serai("login", "--user", "alice")
    copied = world.kept()
    code, _, err = world.serai("logout")
    assert code == 0 and f"signed out of {GATEWAY}" in err
    assert world.kept() == {} and world.serai("whoami")[0] == 77
    (world.folder / "config" / "tokens.json").write_text(json.dumps(copied))
    world.time.now += LIFE_S
    code, _, err = world.serai("whoami")
    assert code == 77 and "has ended" in err, "a copy of the file is worth nothing"


def test_logout_says_when_the_issuer_could_not_be_told(world: World) -> None:
    world.serai("login", "--user", "alice")
    world.network.away.add(8081)
    code, _, err = world.serai("logout")
    assert code == 75 and "here, but not at its issuer" in err
    assert world.kept() == {}


def test_logout_of_nobody_and_of_all(world: World) -> None:
    assert "nobody was signed in" in world.serai("logout")[2]
    world.serai("login", "--user", "alice")
    assert world.serai("logout", "--all")[0] == 0 and world.kept() == {}


def test_a_refused_request_says_where_its_token_came_from(world: World) -> None:
    world.gateway.first = [problem(401, "token_expired", "the token has expired")]
    code, _, err = world.serai("whoami", BEARER_TOKEN="old")
    assert code == 77 and "put a new token into BEARER_TOKEN, or `unset BEARER_TOKEN` and `serai login`" in err
    assert world.time.day() == NOON
