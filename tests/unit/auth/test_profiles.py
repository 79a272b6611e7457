"""Families of tokens: of each, the access token is taken and every other token of the same key is not (T7, C3, B9)."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from services.auth import deciding
from services.auth.bad_token import BadToken
from services.auth.claims import presented
from services.auth.demo_users import BIO, CLIMATE
from services.auth.issuers import ANY_AUDIENCE, GroupRule, Issuer
from services.auth.permissions import PlatformRole, Role
from services.auth.tables import principals
from shared.contracts.commands import COMMANDS, Principal, ReportProgress
from shared.contracts.questions import WorkloadIdentity
from tests.builders import NOON, a_job, job_id
from tests.unit.auth.world import URL, FakeIssuer, auth, item_for, message_for, signed, trusted

pytestmark = pytest.mark.fast
NOW = NOON.timestamp()
BASE = {"iss": URL, "aud": "serai", "sub": "alice", "iat": NOW, "exp": NOW + 900}
GOOD: dict[str, tuple[str | None, dict[str, Any]]] = {
    "rfc9068": ("at+jwt", {"client_id": "cli", "jti": "1"}),
    "keycloak": ("JWT", {"typ": "Bearer", "azp": "cli"}),
    "egi": ("JWT", {"typ": "Bearer", "azp": "cli"}),
    "iam": (None, {"client_id": "cli"}),
    "wlcg": ("JWT", {"wlcg.ver": "1.3", "jti": "1"}),
    "nomad": ("JWT", {"sub": "global:default:j:g:t:i", "nomad_namespace": "default", "nomad_job_id": "job1",
                      "nomad_allocation_id": "a1", "nomad_task": "main"}),
}  # fmt: skip


def issuer(profile: str, **changed: Any) -> Issuer:
    fields: dict[str, Any] = {"issuer": URL, "profile": profile, "audiences": ("serai",)}
    if profile == "wlcg":
        fields |= {"vos": (CLIMATE,), "groups": (GroupRule(group="/climate", vo=CLIMATE, role=Role.MEMBER),)}
    if profile == "nomad":
        fields["sites"] = ("prague",)
    return Issuer(**(fields | changed))


def present(profile: str, kind: str | None = "good", entry: Issuer | None = None, **changed: Any) -> Any:
    good_kind, claims = GOOD[profile]
    payload = {name: value for name, value in (BASE | claims | changed).items() if value is not None}
    header = {"alg": "ES256", "kid": "k", "typ": good_kind if kind == "good" else kind}
    header = {name: value for name, value in header.items() if value is not None}
    return presented(header, payload, entry or issuer(profile), NOW)


@pytest.mark.parametrize("profile", GOOD)
def test_the_access_token_of_a_family_is_taken(profile: str) -> None:
    said = present(profile)
    assert said.client == ("" if profile in ("wlcg", "nomad") else "cli")
    assert said.expires == NOW + 900


@pytest.mark.parametrize(("profile", "kind", "changed"), [
    ("rfc9068", "JWT", {}), ("rfc9068", None, {}), ("rfc9068", "good", {"jti": None}),
    ("rfc9068", "good", {"client_id": None}), ("rfc9068", "id_token+jwt", {}), ("rfc9068", "logout+jwt", {}),
    ("keycloak", "good", {"typ": "ID"}), ("keycloak", "good", {"typ": "Refresh"}), ("keycloak", "at+jwt", {}),
    ("keycloak", "good", {"typ": None}), ("keycloak", "good", {"typ": "Logout"}), ("keycloak", None, {}),
    ("keycloak", "good", {"azp": None}), ("egi", "good", {"typ": "ID"}), ("egi", "good", {"typ": "Offline"}),
    ("iam", "good", {"nonce": "n"}), ("iam", "good", {"at_hash": "h"}), ("iam", "logout+jwt", {}),
    ("iam", "good", {"events": {}}), ("iam", "good", {"typ": "ID"}), ("iam", "jose", {}),
    ("wlcg", "good", {"wlcg.ver": None}), ("wlcg", "good", {"wlcg.ver": "2.0"}), ("wlcg", "good", {"wlcg.ver": 1.0}),
    ("wlcg", "good", {"wlcg.ver": "11.0"}), ("wlcg", "good", {"jti": None}), ("wlcg", "good", {"nonce": "n"}),
    ("nomad", "good", {"nomad_job_id": None}), ("nomad", "good", {"nomad_task": None}), ("nomad", "at+jwt", {}),
    ("nomad", "good", {"nomad_job_id": ["job1"]}), ("nomad", "good", {"exp": None}),
    ("nomad", "good", {"exp": NOW + 3_601}), ("nomad", "good", {"nomad_namespace": "a\nb"}),
])  # fmt: skip
def test_t7_other_tokens_of_the_same_key_are_refused(profile: str, kind: str | None, changed: dict[str, Any]) -> None:
    with pytest.raises(BadToken):
        present(profile, kind, **changed)


@pytest.mark.parametrize(("one", "other"), [(a, b) for a in GOOD for b in GOOD if a != b])
def test_t7_a_family_takes_no_token_of_a_family_that_it_does_not_look_like(one: str, other: str) -> None:
    alike = {("keycloak", "egi"), ("egi", "keycloak"), ("rfc9068", "iam"), ("keycloak", "iam"), ("egi", "iam"),
             ("wlcg", "iam"), ("nomad", "iam")}  # fmt: skip
    kind, claims = GOOD[one]
    present(one)
    payload = BASE | claims
    header = {"alg": "ES256", "kid": "k"} | ({"typ": kind} if kind else {})
    if (one, other) in alike:
        presented(header, payload, issuer(other), NOW)
    else:
        with pytest.raises(BadToken):
            presented(header, payload, issuer(other), NOW)


# -- audiences and clients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("audience", [None, "account", ["account", "broker"], ["account"], "serai"])
def test_c3_tokens_for_anybody_are_taken_only_where_that_is_said_and_the_client_is_named(audience: object) -> None:
    shared = issuer("keycloak", accept_shared_audience=True, clients=("cli",))
    assert present("keycloak", entry=shared, aud=audience).client == "cli"
    with pytest.raises(BadToken, match="client"):
        present("keycloak", entry=shared, aud=audience, azp="another-service")
    if audience != "serai":
        with pytest.raises(BadToken, match="audience"):
            present("keycloak", aud=audience)


@pytest.mark.parametrize(
    "audience", ["other", [], ["broker"], {"account": 1}, [["account"]], 1, True, ["account"] * 33]
)
def test_c3_a_shared_audience_is_not_any_audience(audience: object) -> None:
    shared = issuer("keycloak", accept_shared_audience=True, clients=("cli",))
    with pytest.raises(BadToken, match="audience"):
        present("keycloak", entry=shared, aud=audience)


def test_c3_wlcgs_word_for_everybody_is_for_us_too_and_only_in_its_profile() -> None:
    present("wlcg", aud=ANY_AUDIENCE)
    present("wlcg", aud=["x", ANY_AUDIENCE])
    for profile in ("rfc9068", "keycloak", "iam"):
        with pytest.raises(BadToken):
            present(profile, aud=ANY_AUDIENCE)
    with pytest.raises(BadToken):
        present("wlcg", aud=f"{ANY_AUDIENCE}/")


def test_c3_named_clients_bind_even_where_the_audience_is_ours() -> None:
    for profile in ("rfc9068", "iam", "keycloak"):
        present(profile, entry=issuer(profile, clients=("cli",)))
        with pytest.raises(BadToken, match="client"):
            present(profile, entry=issuer(profile, clients=("another",)))
    with pytest.raises(BadToken, match="client"):
        present("wlcg", entry=issuer("wlcg", clients=("cli",)))


# -- identities of jobs -------------------------------------------------------------------------------------------


def test_b9_a_jobs_identity_is_of_exactly_that_job() -> None:
    workload = present("nomad").workload
    assert workload == WorkloadIdentity(job="job1", namespace="default", allocation="a1", sites=("prague",))
    assert deciding.of_workload(workload, "job.report", "job1", None).allowed
    for other in ("job", "job10", "JOB1", "job1 ", "", "xjob1", None):
        assert deciding.of_workload(workload, "job.report", other, None).code == "another_job"
    assert present("rfc9068").workload is None


@pytest.mark.parametrize("verb", sorted({command.verb for command in COMMANDS} - {"job.report"}))
def test_b9_a_jobs_identity_is_granted_nothing_else(verb: str) -> None:
    workload = present("nomad").workload
    assert deciding.of_workload(workload, verb, "job1", None).code == "workload_may_not"


async def test_b9_grants_for_reports_are_for_jobs_themselves_and_name_them(tmp_path: Path) -> None:
    server = FakeIssuer()
    kind, claims = GOOD["nomad"]
    name = f"{job_id(1)}-001"
    token = signed(server.key, {**BASE, **claims, "nomad_job_id": name}, typ=kind)
    report = ReportProgress(
        job_id=job_id(1), attempt=1, vo=CLIMATE, reported_at=NOON,
        reported_by=Principal(issuer=URL, subject="global:default:j:g:t:i"),
    )  # fmt: skip
    trust = (issuer("nomad", algorithms=("ES256",)), trusted("https://people.example"))
    people = FakeIssuer("https://people.example")
    async with auth(tmp_path, server, people, trust=trust) as running:
        assert (await running.context(token)).json()["workload"] == {
            "job": name, "namespace": "default", "allocation": "a1", "sites": ["prague"],
        }  # fmt: skip
        asked = [item_for(report, CLIMATE, attempt=each) for each in (name, f"{job_id(1)}-0010", None)]
        good, *bad = await running.grant(token, *asked)
        claims_of = await running.grants.verify_command(message_for(report, good["grant"]))
        assert claims_of.workload is not None and claims_of.workload.job == name
        assert [each["refusal_code"] for each in bad] == ["another_job", "another_job"]
        (person,) = await running.grant(people.token(), item_for(report, CLIMATE, attempt=name))
        assert person["refusal_code"] == "workload_needed"
        (submit,) = await running.grant(token, item_for(a_job(), CLIMATE))
        assert submit["refusal_code"] == "workload_may_not"
        kept = await running.store.read(lambda c: [row.subject for row in c.execute(select(principals.c.subject))])
        assert "alice" in kept and not [each for each in kept if each.startswith("global:")]


async def test_b9_a_jobs_identity_holds_no_vo_and_no_role_whatever_it_says(tmp_path: Path) -> None:
    server = FakeIssuer()
    kind, claims = GOOD["nomad"]
    said = claims | {"entitlements": ["urn:geant:dev.serai.example:group:x#y"], "wlcg.groups": ["/climate"]}
    token = signed(server.key, {**BASE, **said}, typ=kind)
    trust = issuer("nomad", algorithms=("ES256",))
    async with auth(tmp_path, server, trust=(trust,)) as running:
        context = (await running.context(token)).json()
    assert (context["memberships"], context["platform_roles"]) == ([], [])


# -- groups and roles of a whole token ----------------------------------------------------------------------------


async def memberships(tmp_path: Path, entry: Issuer, kind: str, *tokens: dict[str, Any]) -> list[dict[str, Any]]:
    """What each of the tokens is taken for."""
    server, found = FakeIssuer(), []
    async with auth(tmp_path, server, trust=(entry,)) as running:
        for claims in tokens:
            payload = {name: value for name, value in (BASE | claims).items() if value is not None}
            answer = await running.context(signed(server.key, payload, typ=kind))
            assert answer.status_code == 200, answer.text
            said = answer.json()
            found.append({each["vo"]: each["role"] for each in said["memberships"]} | {"": said["platform_roles"]})
    return found


GROUPS: list[tuple[Any, str | None]] = [
    (["/climate"], "member"), (["/climate", "/climate/managers"], "manager"), (["/climate/managers"], "manager"),
    (["/climate/other"], None), (["/climat"], None), (["/climate2"], None), (["climate"], None), (["/climate/"], None),
    (["/CLIMATE"], None), (["/climate\n"], None), ([], None), ("/climate", None), ([["/climate"]], None),
    ({"/climate": 1}, None), (["/climate"] + ["/x"] * 2_000, None), ([None, "/climate"], "member"),
]  # fmt: skip


async def test_c7_c9_wlcg_groups_are_compared_whole(tmp_path: Path) -> None:
    rules = (
        GroupRule(group="/climate", vo=CLIMATE, role=Role.MEMBER),
        GroupRule(group="/climate/managers", vo=CLIMATE, role=Role.MANAGER),
        GroupRule(group="/operators", platform_role=PlatformRole.SITE_OPERATOR),
    )
    good, entry = GOOD["wlcg"][1], issuer("wlcg", groups=rules)
    tokens = [good | {"wlcg.groups": groups} for groups, _ in GROUPS]
    *found, operator = await memberships(tmp_path, entry, "JWT", *tokens, good | {"wlcg.groups": ["/operators"]})
    for (groups, expected), held in zip(GROUPS, found, strict=True):
        assert held == ({CLIMATE: expected} if expected else {}) | {"": []}, groups
    assert operator == {"": ["site-operator"]}


KEYCLOAK_ROLES: list[tuple[Any, dict[str, str]]] = [
    (["access:vo.climate.example:ap-u"], {CLIMATE: "member"}),
    (["access:vo.climate.example:ap-a", "access:vo.climate.example:ap-u"], {CLIMATE: "member"}),
    (["access:vo.climate.example:ap-a"], {CLIMATE: "observer"}),
    (["access:vo.climate.example:ap-x"], {}), (["access:vo.foreign.example:ap-u"], {}),
    (["access:vo.climate.example:ap-u:x"], {}), (["xaccess:vo.climate.example:ap-u"], {}),
    (["access:vo.climate.example.evil:ap-u"], {}), (["access:VO.climate.example:ap-u"], {}),
    (["access::ap-u"], {}), (["access:vo.climate.example:ap-u\n"], {}), (["accessXvo.climate.exampleXap-u"], {}),
    (["access:voXclimate.example:ap-u"], {}), ("access:vo.climate.example:ap-u", {}), ([1, None, {}], {}),
    (["access:vo.climate.example:ap-u", "access:vo.bio.example:ap-d"], {CLIMATE: "member", BIO: "member"}),
]  # fmt: skip


async def test_c7_keycloak_roles_are_spelled_exactly(tmp_path: Path) -> None:
    entry = issuer(
        "keycloak", algorithms=("ES256",), vos=(CLIMATE, BIO), role_format="access:{vo}:{role}",
        roles={"ap-a": Role.OBSERVER, "ap-u": Role.MEMBER, "ap-d": Role.MEMBER},
    )  # fmt: skip
    good = GOOD["keycloak"][1]
    spelled = [good | {"realm_access": {"roles": roles}} for roles, _ in KEYCLOAK_ROLES]
    found = await memberships(tmp_path, entry, "JWT", *spelled)
    for (roles, expected), held in zip(KEYCLOAK_ROLES, found, strict=True):
        assert held == {**expected, "": []}, roles
    elsewhere = [
        good | {"realm_access": nothing}
        for roles, _ in KEYCLOAK_ROLES
        for nothing in (roles, [roles], None, 1, {"roles": {"a": roles}})
    ]
    for claims, held in zip(elsewhere, await memberships(tmp_path, entry, "JWT", *elsewhere), strict=True):
        assert held == {"": []}, claims


async def test_c8_groups_and_roles_mean_nothing_at_an_issuer_that_was_not_given_them(tmp_path: Path) -> None:
    entry = trusted()
    claims = {"client_id": "cli", "jti": "1", "realm_access": {"roles": [f"access:{CLIMATE}:manager"]},
              "groups": ["/climate"], "wlcg.groups": ["/climate", "/operators"]}  # fmt: skip
    assert await memberships(tmp_path, entry, "at+jwt", claims) == [{"": []}]
