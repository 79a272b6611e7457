"""What issuers answer, good and bad: each bad answer becomes words, and none of it reaches a terminal raw."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from serai.errors import ClientError, IssuerRefused, NotUnderstood, Unreachable
from serai.signin.issuers import issuers_of
from serai.signin.oauth import Endpoints, OAuth, Started, Tokens, for_audience
from tests.unit.client.builders import Deaf

pytestmark = pytest.mark.fast

ISSUER = "https://aai.example.org/"
AT = Endpoints(ISSUER, f"{ISSUER}token", f"{ISSUER}device", f"{ISSUER}revoke")
BEGUN = {
    "device_code": "secret", "user_code": "ABCD-EFGH", "verification_uri": f"{ISSUER}go", "expires_in": 600,
}  # fmt: skip
TOKENS = {"access_token": "a", "token_type": "Bearer"}
Ask = Callable[[OAuth], Any]


async def told(body: Any, ask: Ask, status: int = 200) -> Any:
    """What a conversation makes of one answer."""
    answer = httpx2.Response(status, content=body) if isinstance(body, bytes) else httpx2.Response(status, json=body)
    async with OAuth(httpx2.MockTransport(lambda request: answer)) as oauth:
        return await ask(oauth)


async def begin(oauth: OAuth) -> Started:
    return await oauth.start(AT, "serai-cli", ("openid",), None)


async def refresh(oauth: OAuth) -> Tokens:
    return await oauth.refresh(AT, "serai-cli", "refresh", None)


async def discover(oauth: OAuth) -> Endpoints:
    return await oauth.discover(ISSUER)


# -- good ---------------------------------------------------------------------------------------------------------


async def test_what_an_issuer_leaves_out_has_the_meaning_of_the_standard() -> None:
    begun = await told(BEGUN, begin)
    assert (begun.interval_s, begun.complete_uri) == (5, None), "RFC 8628, 3.2"
    assert await told(TOKENS | {"token_type": "bearer"}, refresh) == Tokens("a", None, None), "RFC 6749, 5.1"
    assert await told(TOKENS | {"expires_in": "300", "refresh_token": "r"}, refresh) == Tokens("a", "r", 300)
    plain = await told({"issuer": ISSUER, "token_endpoint": f"{ISSUER}token"}, discover)
    assert (plain.device, plain.revocation) == (None, None)


async def test_an_interval_of_nothing_is_a_second() -> None:
    assert (await told(BEGUN | {"interval": 0}, begin)).interval_s == 1


def test_an_audience_is_asked_for_in_both_ways_where_it_is_an_address() -> None:
    assert for_audience(None) == {}
    assert for_audience("serai") == {"audience": "serai"}
    assert for_audience("https://serai.example") == {
        "audience": "https://serai.example", "resource": "https://serai.example",
    }  # fmt: skip


def test_an_issuer_string_keeps_its_final_slash() -> None:
    (only,) = issuers_of({"issuers": [{"issuer": ISSUER}]})
    assert (only.url, only.name, only.client_id) == (ISSUER, ISSUER, None)
    assert issuers_of({"issuers": ["https://old.example"]})[0].url == "https://old.example"
    assert issuers_of({}) == []


# -- bad ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"device_code": None}, "did not say how it goes on"),
        ({"user_code": None}, "did not say how it goes on"),
        ({"verification_uri": None}, "did not say how it goes on"),
        ({"verification_uri": "javascript:alert(1)"}, "not an https address"),
        ({"verification_uri": "file:///etc/passwd"}, "not an https address"),
        ({"verification_uri": "http://aai.example.org/go"}, "not an https address"),
        ({"verification_uri": f"{ISSUER}\x1b]8;;"}, "not an https address"),
        ({"verification_uri_complete": "javascript:alert(1)"}, "not an https address"),
        ({"expires_in": "soon"}, "did not say how it goes on"),
        ({"interval": {}}, "did not say how it goes on"),
    ],
)
async def test_a_sign_in_that_was_begun_badly_is_not_gone_on_with(changed: dict[str, Any], words: str) -> None:
    said = {name: value for name, value in (BEGUN | changed).items() if value is not None}
    with pytest.raises(NotUnderstood, match=words):
        await told(said, begin)


async def test_a_code_cannot_write_on_the_terminal() -> None:
    assert (await told(BEGUN | {"user_code": "\x1b[2JAB\r\n" + "C" * 1_000}, begin)).user_code == "[2JAB" + "C" * 295


@pytest.mark.parametrize(
    "said",
    [
        {}, {"access_token": "", "token_type": "Bearer"}, {"access_token": 7, "token_type": "Bearer"},
        {"access_token": "a"}, {"access_token": "a", "token_type": "DPoP"}, TOKENS | {"expires_in": "soon"},
        b"<html>maintenance</html>", b"[]",
    ],
)  # fmt: skip
async def test_an_answer_without_a_bearer_token_is_none(said: Any) -> None:
    with pytest.raises(NotUnderstood):
        await told(said, refresh)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [{"error": "server_error"}, {"error": "slow_down"}, b"<html>"])
async def test_an_issuer_in_trouble_is_away_and_has_refused_nothing(status: int, body: Any) -> None:
    """A refresh token must not be thrown away for it."""
    with pytest.raises(Unreachable, match=f"HTTP {status}"):
        await told(body, refresh, status)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, {"error": "invalid_grant", "error_description": "it is old"}, "says invalid_grant: it is old$"),
        (401, {"error": "invalid_client"}, "says invalid_client$"),
        (400, {"error": "x\x1b[31m\n" + "y" * 1_000}, r"says x\[31my"),
        (403, b"<html>", "HTTP 403 without an OAuth error"),
        (302, b"", "HTTP 302 without an OAuth error"),
    ],
)
async def test_a_refusal_is_told_in_the_issuers_own_words(status: int, body: Any, words: str) -> None:
    with pytest.raises(IssuerRefused, match=words) as caught:
        await told(body, refresh, status)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"issuer": "https://other.example"}, "names another issuer: https://other.example"),
        ({"issuer": ISSUER.rstrip("/")}, "names another issuer"),
        ({"issuer": ISSUER}, "offers no `token_endpoint`"),
        ({"issuer": ISSUER, "token_endpoint": "http://aai.example.org/token"}, "is not an https address"),
        ({"issuer": ISSUER, "token_endpoint": 7}, "is not an https address"),
        (b"<html>", "not with what an issuer offers"),
    ],
)
async def test_a_discovery_that_does_not_hold_is_not_used(said: Any, words: str) -> None:
    with pytest.raises(NotUnderstood, match=words):
        await told(said, discover)


async def test_nothing_is_sent_twice() -> None:
    """Whoever asks decides: a refresh token that was sent may be void already."""
    for ask in (discover, begin, refresh):
        deaf = Deaf(httpx2.ReadTimeout)
        with pytest.raises(ClientError) as caught:
            async with OAuth(deaf) as oauth:
                await ask(oauth)
        assert deaf.tries == 1 and isinstance(caught.value, Unreachable) and "network" in str(caught.value.next)
