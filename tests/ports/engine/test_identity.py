"""A task's own token: in the file that SERAI_TOKEN_FILE names, signed by its cluster, and of exactly its job."""

import time
from typing import Any

import pytest
from joserfc import jwk, jws

from shared.engine import AllocationSeen
from shared.errors import SeraiError
from shared.runtime.jws import parse
from tests.ports.engine.site import SiteUnderTest, a_script

SHOW = 'cat "$SERAI_TOKEN_FILE" > token; echo "$SERAI_URL" > url; env | grep -c NOMAD_TOKEN > inside || true'
GATEWAY = "http://gateway.example:8080"


async def claims_at(site: SiteUnderTest, end: AllocationSeen) -> dict[str, Any]:
    """What the token says, once its signature is that of the cluster's published key."""
    token = (await site.file(end, "token")).decode()
    keys = (await site.by_hand("GET", "/.well-known/jwks.json"))["keys"]
    header = parse(token, most_bytes=8_192)
    key = next(each for each in keys if each["kid"] == header.kid)
    assert key["alg"] == header.algorithm in ("RS256", "EdDSA")
    jws.deserialize_compact(token, jwk.import_key(key), algorithms=["RS256", "EdDSA"])
    return header.unverified


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
