"""What authentication and authorisation cost: verifying a token, deciding, granting over HTTP, and their share of a
read and of a submission, against the same platform with both answered by a constant (`bench/constant.py`).
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
import orjson
from joserfc import jws as jose
from joserfc.jwk import ECKey, RSAKey

from bench import jobs, machine, processes
from bench.load import Load
from bench.processes import Up
from bench.reading import a_finished_job
from bench.results import Result, median, of_rounds
from services.auth import deciding
from services.auth.claims import Verified
from services.auth.issuers import Issuer, Speaker
from services.auth.permissions import Role
from services.auth.policies import Layers, StoredPolicy, hash_of
from services.auth.settings import AuthSettings
from services.auth.standing import Standing
from services.auth.verifier import Verifier
from services.auth.wiring import trusted_issuer
from shared.contracts.commands import Principal
from shared.contracts.policies import Policy, demand_of
from shared.contracts.suspensions import Suspended, Suspension, TrustState
from shared.job import JobSpec
from shared.runtime.clock import system_clock
from shared.runtime.service_identity import Identity, private_key

ISSUER: Final = "https://issuer.invalid/realms/community"
ENTITLEMENTS: Final = 20
READERS: Final = 50


def measure(quick: bool) -> list[Result]:
    """Everything about auth."""
    rounds, seconds = (1, 0.3) if quick else (7, 2.0)
    return [
        *(_verification(algorithm, rounds, 20 if quick else 500) for algorithm in ("RS256", "ES256")),
        *_decisions(rounds, 100 if quick else 20_000),
        *_over_http(rounds, seconds),
    ]


# -- parts of it, in this process ---------------------------------------------------------------------------------


def _verification(algorithm: str, rounds: int, count: int) -> Result:
    """A token of a research community's size, its issuer's keys at hand."""
    key: Any = {"RS256": lambda: RSAKey.generate_key(2048), "ES256": lambda: ECKey.generate_key("P-256")}[algorithm]()
    token = _token(key, algorithm)
    took = [asyncio.run(_verified(key, token, count)) for _ in range(rounds)]
    return of_rounds(
        f"verifying a token ({algorithm}), p50", took, "ms",
        f"{rounds} rounds of {count} in one process; {len(token)} bytes with {ENTITLEMENTS} entitlements; signature, "
        "claims, entitlements and trust, nothing remembered; the issuer's keys at hand", goal=("at most", 0.3),
    )  # fmt: skip


async def _verified(key: Any, token: str, count: int) -> float:
    public = {**key.as_dict(private=False), "kid": "k1", "use": "sig"}

    def answer(request: httpx.Request) -> httpx.Response:
        known = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"}
        return httpx.Response(200, json={"keys": [public]} if request.url.path.endswith("/jwks") else known)

    entry = Issuer(
        issuer=ISSUER, audiences=("serai",), vos=(jobs.VO,),
        speakers=(Speaker(namespace="urn:mace:egi.eu", authority="aai.egi.eu"),),
    )  # fmt: skip
    settings = AuthSettings(service_token="bench", issuers=(entry,))  # type: ignore[arg-type]  # as the environment says
    known = trusted_issuer(entry, settings, system_clock, httpx.MockTransport(answer))
    verifier = Verifier({ISSUER: known}, system_clock, settings.most_token_bytes)
    if (await verifier.verify(token)).memberships != {jobs.VO: Role.MEMBER}:
        raise RuntimeError("the token was not read as it should be: the measurement measures something else")
    took = []
    for _ in range(count):
        verifier = Verifier({ISSUER: known}, system_clock, settings.most_token_bytes)  # one that remembers nothing
        begun = time.perf_counter()
        await verifier.verify(token)
        took.append(time.perf_counter() - begun)
    await known.http.close()
    return median(took) * 1e3


def _token(key: Any, algorithm: str) -> str:
    now = int(time.time())
    others = [
        f"urn:mace:egi.eu:group:vo{number}.example.eu:role=member#aai.egi.eu" for number in range(1, ENTITLEMENTS)
    ]
    claims = {
        "iss": ISSUER, "aud": "serai", "sub": "a" * 64 + "@egi.eu", "client_id": "serai-cli", "iat": now,
        "exp": now + 3600, "jti": "t1", "name": "Alice Adamová",
        "eduperson_entitlement": [f"urn:mace:egi.eu:group:{jobs.VO}:role=member#aai.egi.eu", *others],
    }  # fmt: skip
    header = {"alg": algorithm, "typ": "at+jwt", "kid": "k1"}
    return jose.serialize_compact(header, orjson.dumps(claims), key, algorithms=[algorithm])


def _decisions(rounds: int, count: int) -> list[Result]:
    """A cancel, and a submission under the policies of platform and VO, while others are suspended."""
    now = datetime.now(UTC)
    alice = Principal(issuer=ISSUER, subject="alice", name="Alice")
    roles = {jobs.VO: Role.MEMBER, "vo.bio.example": Role.MANAGER}
    asker = Verified(alice, roles, frozenset(), now + timedelta(hours=1), "serai-cli", "t1")
    policy = Policy.model_validate({
        "sites": ["prague", "lyon"], "drivers": ["exec", "docker"], "job": {"cpu_cores": 16, "memory_mib": 65_536},
        "user": {"cpu_cores": 64}, "max_runtime_s": 172_800,
    })  # fmt: skip
    suspensions = tuple(Suspension(id=str(n), kind="subject", issuer=ISSUER, value=f"m{n}") for n in range(20))
    stored = {jobs.VO: StoredPolicy(jobs.VO, 1, policy, hash_of(policy))}
    standing = Standing(TrustState(version=1, suspensions=suspensions), Suspended(suspensions), stored)
    layers = Layers(platform=Policy.model_validate({"job": {"cpu_cores": 64}}))
    demand = demand_of(JobSpec(name="job", vo=jobs.VO, command=("/bin/true",)))

    def cancel() -> bool:
        return deciding.change(asker, "job.cancel", jobs.VO, None, standing, layers, now, own=True).allowed

    def submit() -> bool:
        return deciding.change(asker, "job.submit", jobs.VO, demand, standing, layers, now, own=True).allowed

    method = f"{rounds} rounds of {count} in one process, by its CPU clock; 20 other subjects suspended"
    policies = f"{method}; four limits, drivers and sites in the policies of platform and VO"
    return [
        of_rounds("deciding about a cancel", _each_us(cancel, rounds, count), "us", method, goal=("at most", 5)),
        of_rounds("deciding about a submission", _each_us(submit, rounds, count), "us", policies, goal=("at most", 5)),
    ]


def _each_us(decide: Callable[[], bool], rounds: int, count: int) -> list[float]:
    if not decide():
        raise RuntimeError("the decision was a no: the measurement measures something else")
    took = []
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(count):
            decide()
        took.append((time.process_time() - begun) / count * 1e6)
    return took


# -- the whole of it, against a constant --------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """One platform, round by round."""

    read_us: list[float] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)
    submit_ms: list[float] = field(default_factory=list)


def _over_http(rounds: int, seconds: float) -> list[Result]:
    with (
        processes.folder() as data,
        processes.platform(data / "real", sites=jobs.SITES) as real,
        processes.platform(data / "constant", sites=jobs.SITES, constant=True) as constant,
    ):
        ups, seen = (real, constant), (Seen(), Seen())
        paths = [a_finished_job(up) for up in ups]
        granted = [_granted_ms(real, data / "real", seconds) for _ in range(rounds)]
        for _ in range(rounds):
            for up, path, each in zip(ups, paths, seen, strict=True):
                _round(up, path, each, seconds)
    return [*_granting(granted, seconds), *_shares(*seen, rounds, seconds)]


def _round(up: Up, path: str, seen: Seen, seconds: float) -> None:
    before = machine.cpu_s(up.pid)
    many = _loaded(Load(f"{up.url}{path}", READERS, seconds, headers=up.headers()), "200")
    seen.read_us.append((machine.cpu_s(up.pid) - before) / many["requests"] * 1e6)
    seen.read_ms.append(_loaded(Load(f"{up.url}{path}", 1, seconds, headers=up.headers()), "200")["p50_ms"])
    body = jobs.body(jobs.unplaceable())
    submitted = Load(f"{up.url}/v1/jobs", 1, seconds, "POST", up.headers(), body)
    seen.submit_ms.append(_loaded(submitted, "202")["p50_ms"])


def _loaded(load: Load, status: str) -> dict[str, Any]:
    told = processes.load(load)
    if set(told["statuses"]) != {status}:
        raise RuntimeError(f"{load.url} answered {told['statuses']}")
    return told


def _granted_ms(up: Up, data: Path, seconds: float) -> tuple[float, float]:
    """One question after the other, as a gateway asks them: a live token, one command each. p50, and CPU of each."""
    kept = json.loads((data / "platform" / "platform.json").read_text())
    body = jobs.body(jobs.unplaceable())
    item = {
        "verb": "job.submit", "vo": jobs.VO, "message_type": "eu.serai.job.submit.v1",
        "body_sha256": hashlib.sha256(body.encode()).hexdigest(),
        "demand": demand_of(JobSpec(name="job", vo=jobs.VO, command=("/bin/true",))).model_dump(mode="json"),
    }  # fmt: skip
    asked = json.dumps({"token": up.token(), "items": [item]})
    headers = Identity("gateway", private_key(kept["service_keys"]["gateway"][0])).headers("auth")
    url = f"http://127.0.0.1:{kept['ports']['auth']}/internal/grants"
    before = machine.cpu_s(up.pid)
    told = _loaded(Load(url, 1, seconds, "POST", headers, asked), "200")
    return float(told["p50_ms"]), (machine.cpu_s(up.pid) - before) / told["requests"] * 1e3


def _granting(granted: list[tuple[float, float]], seconds: float) -> list[Result]:
    method = (
        f"{len(granted)} rounds of {seconds:g} s, one question after the other from another process over loopback: the "
        "token verified anew, decided, signed, and the audit record committed (synchronous=FULL)"
    )
    took, spent = zip(*granted, strict=True)
    return [
        of_rounds("a grant over HTTP, p50", took, "ms", method, goal=("at most", 2)),
        of_rounds("a grant over HTTP, CPU", spent, "ms", f"{method}; CPU of the whole platform"),
    ]


def _shares(real: Seen, constant: Seen, rounds: int, seconds: float) -> list[Result]:
    method = (
        f"{rounds} rounds of {seconds:g} s, two embedded platforms in turn, the same but for auth: one verifies, asks, "
        "decides and signs, the other has a constant caller and a constant grant"
    )
    told = {"denominator_is": "auth as a constant"}
    adds = [one - other for one, other in zip(real.submit_ms, constant.submit_ms, strict=True)]
    return [
        of_rounds("GET /v1/jobs/{id}, CPU with auth", real.read_us, "us/request", f"{method}; {READERS} in flight",
                  against=constant.read_us, goal=("at most", 1.25), **told),
        of_rounds("GET /v1/jobs/{id}, p50 with auth", real.read_ms, "ms", f"{method}; one at a time",
                  against=constant.read_ms, goal=("at most", 1.25), **told),
        of_rounds("POST /v1/jobs, p50 with auth", real.submit_ms, "ms", f"{method}; one at a time; no site has room",
                  against=constant.submit_ms, **told),
        of_rounds("POST /v1/jobs, p50 that auth adds", adds, "ms", f"{method}; the differences of the rounds",
                  goal=("at most", 3)),
    ]  # fmt: skip
