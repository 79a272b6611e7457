"""A task's own token: in the file that SERAI_TOKEN_FILE names, signed by its cluster, and of exactly its job."""

import asyncio
import time
from typing import Any

import pytest
from joserfc import jwk, jws

from shared.engine import AllocationSeen
from shared.errors import NotFound, SeraiError
from shared.runtime.jws import Compact, Malformed, parse
from tests.pacing import pause
from tests.ports.engine.conftest import REAL
from tests.ports.engine.site import SiteUnderTest, a_script

SHOW = 'cat "$SERAI_TOKEN_FILE" > token; echo "$SERAI_URL" > url; env | grep -c NOMAD_TOKEN > inside || true'
GATEWAY = "http://gateway.example:8080"


async def read_at(site: SiteUnderTest, end: AllocationSeen, name: str = "token") -> Compact:
    """A token, once its signature is that of a key that the cluster publishes now."""
    token = (await site.file(end, name)).decode()
    keys = (await site.by_hand("GET", "/.well-known/jwks.json"))["keys"]
    read = parse(token, most_bytes=8_192)
    key = next(each for each in keys if each["kid"] == read.kid)
    assert key["alg"] == read.algorithm in ("RS256", "EdDSA")
    jws.deserialize_compact(token, jwk.import_key(key), algorithms=["RS256", "EdDSA"])
    return read


async def written(site: SiteUnderTest, running: AllocationSeen) -> Compact:
    """The token of a task that has just begun, once it has shown it."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await read_at(site, running)
            except (NotFound, Malformed):
                await pause(0.05)


async def claims_at(site: SiteUnderTest, end: AllocationSeen) -> dict[str, Any]:
    return (await read_at(site, end)).unverified


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_a_task_has_a_token_that_says_which_job_it_is(site: SiteUnderTest) -> None:
    async with site.with_settings(platform_url=GATEWAY, identity_ttl_s=600) as other:
        order = await other.submitted(a_script(SHOW))
        end = await other.ended(order)
        claims = await claims_at(other, end)
    assert (claims["nomad_job_id"], claims["nomad_allocation_id"]) == (order.attempt.nomad_id, end.id)
    assert (claims["nomad_namespace"], claims["nomad_task"], claims["aud"]) == ("default", "main", "serai")
    assert claims["iss"] == site.operator.address
    assert claims["exp"] - claims["iat"] == 600
    assert abs(claims["iat"] - time.time()) < 60
    assert claims["sub"].split(":")[1:] == ["default", order.attempt.nomad_id, "main", "main", "serai"]
    assert (await site.file(end, "url")).decode() == f"{GATEWAY}\n"
    assert await site.file(end, "inside") == b"0\n", "not in the environment, where it could not be renewed"


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_b9_another_tasks_token_names_another_job(site: SiteUnderTest) -> None:
    async with site.with_settings(platform_url=GATEWAY) as other:
        orders = [await other.submitted(a_script(SHOW)) for _ in range(2)]
        found = [await claims_at(other, await other.ended(order)) for order in orders]
    assert [each["nomad_job_id"] for each in found] == [order.attempt.nomad_id for order in orders]
    assert found[0]["jti"] != found[1]["jti"]


@pytest.mark.parametrize("site", [REAL], indirect=True)
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_i3_a_running_task_goes_on_over_the_rotation_of_its_clusters_key(site: SiteUnderTest) -> None:
    """`nomad operator root keyring rotate`: the new key signs at once, what the old one signed is good beside it."""
    async with site.with_settings(platform_url=GATEWAY) as other:
        running = await other.submitted(a_script(f"{SHOW}; sleep 60"))
        there = await other.reached(running, "running")
        before = await written(other, there)
        await site.by_hand("PUT", "/v1/operator/keyring/rotate")
        after = await read_at(other, await other.ended(await other.submitted(a_script(SHOW))))
        assert (await read_at(other, there)).text == before.text, "the old key is published still"
        await other.engine.close(running.attempt, running.namespace)
    assert before.kid != after.kid


async def test_without_an_address_of_the_platform_there_is_no_token(site: SiteUnderTest) -> None:
    order = await site.submitted(
        a_script('ls "$NOMAD_SECRETS_DIR" > there; echo "[$SERAI_URL$SERAI_TOKEN_FILE]" > told')
    )
    end = await site.ended(order)
    assert b"nomad_serai" not in await site.file(end, "there")
    assert await site.file(end, "told") == b"[]\n"


async def test_the_token_is_in_no_job_and_cannot_be_read_from_outside(site: SiteUnderTest) -> None:
    async with site.with_settings(platform_url=GATEWAY) as other:
        order = await other.submitted(a_script(SHOW))
        end = await other.ended(order)
    token = (await site.file(end, "token")).decode()
    told = [
        str(await site.by_hand("GET", path))
        for path in (f"/v1/job/{order.attempt.nomad_id}?namespace=default", f"/v1/allocation/{end.id}")
    ]
    signature = token.rsplit(".", 1)[1]
    assert not any(signature in each for each in told)
    assert order.attempt.nomad_id in told[0]
    with pytest.raises(SeraiError) as closed:
        await site.watch.file(end.id, "main/secrets/nomad_serai.jwt", 8_192)
    assert signature not in closed.value.what
