"""H9: a token never leaves auth: not in answers, errors, logs, the database, the audit log or a grant."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import structlog

from services.auth.demo_users import BIO, CLIMATE
from shared.contracts.policies import demand_of
from shared.runtime import logs
from shared.runtime.redacting import MARK
from tests.builders import ALICE, a_job
from tests.unit.auth.loopback_issuer import loopback_issuer, trusted_egi
from tests.unit.auth.world import FakeIssuer, auth, entitlement, item_for

pytestmark = pytest.mark.fast


def parts_of(token: str) -> list[str]:
    """What must not be seen anywhere: the token, and its signature, which nobody else has."""
    return [token, token.rsplit(".", 1)[1]]


def kept_in(folder: Path) -> str:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file()).decode("latin-1")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything is logged, as loudly as it can be, and kept here; afterwards logging is as it was."""
    before, handlers = structlog.get_config(), list(logging.getLogger().handlers)
    said = io.StringIO()
    logs.configure("debug")
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(said))
    yield said
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers


async def test_h9_no_token_in_any_output_of_auth(tmp_path: Path, written: io.StringIO) -> None:
    issuer, job = FakeIssuer(), a_job(owner=ALICE)
    good, admin = issuer.token(), issuer.token(sub="root", entitlements=[entitlement("serai-platform", "admin")])
    bad = [issuer.token(aud="x"), issuer.token(exp=1), good[:-4] + "AAAA", issuer.token(iss="https://x.example")]
    told: list[str] = []
    async with auth(tmp_path, issuer) as running:
        for token in (good, admin, *bad):
            told.append((await running.context(token)).text)
            body = {
                "token": token,
                "items": [item_for(job, vo, demand=demand_of(job.spec)).model_dump() for vo in (CLIMATE, BIO)],
            }
            told.append((await running.http.post("/internal/grants", json=body)).text)
            headers = {"Authorization": f"Bearer {token}"}
            told.append((await running.http.post("/v1/suspensions", content=b"{", headers=headers)).text)
            told.append((await running.http.get("/v1/audit", headers=headers)).text)
            told.append((await running.http.get(f"/v1/can-i?verb=x&access_token={token}", headers=headers)).text)
        told.append((await running.http.post("/internal/context", content=orjson.dumps({"tokens": good}))).text)
        told.append((await running.http.get("/readyz")).text)
    kept = kept_in(tmp_path)
    said = written.getvalue()
    assert "grant_refused" in said, "the check of the check: there is a log"
    assert MARK not in said, "nothing had to be taken out of it"
    for token in (good, admin, *bad):
        for part in parts_of(token):
            assert part not in kept
            assert part not in said
            assert not any(part in answer for answer in told)


async def test_h9_a_token_goes_to_its_own_issuer_only_and_its_answers_stay_in_memory(
    tmp_path: Path, written: io.StringIO
) -> None:
    async with loopback_issuer() as issuer, loopback_issuer() as other:
        issuer.userinfo = {"secret_claim": "canary-5521"}
        trust = (trusted_egi(issuer.url), trusted_egi(other.url))
        async with auth(tmp_path, issuer, trust=trust, network=True, dev_mode=True) as running:
            token = issuer.egi_token()
            told = (await running.context(token)).text
            issuer.trouble = {"/userinfo": "500"}
            told += (await running.context(issuer.egi_token(jti="t2"))).text
        assert not any(token in head for head in other.heads)
        assert sum(token in head for head in issuer.heads) == 1
    kept = kept_in(tmp_path)
    said = written.getvalue()
    for part in (*parts_of(token), "canary-5521"):
        assert part not in kept + told + said
