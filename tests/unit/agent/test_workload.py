"""What a workload has of its own: variables that outlive the agent's restart, sealed, and tokens that are renewed."""

import base64
from pathlib import Path

import pytest

from services.embedded.agent.keyring import Keyring
from services.embedded.agent.state import State
from services.embedded.agent.templates import Missing, Unsupported, render
from services.embedded.agent.workload import Region, Workload, renew_in_s
from shared.runtime.jws import parse
from tests.unit.agent.builders import START, running

pytestmark = pytest.mark.fast
CANARY = "canary-41d9"
PATH = "nomad/jobs/job-1"
ITEMS = {"a": base64.b64encode(CANARY.encode()).decode()}


async def test_variables_are_there_after_a_restart_and_unreadable_in_the_files(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        made = (await client.put(f"/v1/var/{PATH}", json={"Items": ITEMS})).json()
        await client.put("/v1/var/nomad/jobs/gone", json={"Items": ITEMS})
        await client.delete("/v1/var/nomad/jobs/gone")
        keys = (await client.get("/.well-known/jwks.json")).json()
    assert not found_in(tmp_path, CANARY.encode(), ITEMS["a"].encode())
    async with running(tmp_path) as (_, client):
        assert (await client.get(f"/v1/var/{PATH}")).json() == made
        assert (await client.get("/v1/var/nomad/jobs/gone")).status_code == 404
        assert (await client.get("/.well-known/jwks.json")).json() == keys


def found_in(folder: Path, *values: bytes) -> list[str]:
    contents = {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert any(PATH.encode() in content for content in contents.values()), "the check of the check"
    return [name for name, content in contents.items() if any(value in content for value in values)]


def test_the_keys_are_closed_to_others_and_made_once(tmp_path: Path) -> None:
    first = Keyring(tmp_path / "keystore")
    assert (tmp_path / "keystore" / "root.json").stat().st_mode & 0o077 == 0
    again = Keyring(tmp_path / "keystore")
    assert again.open(PATH, first.seal(PATH, ITEMS)) == ITEMS
    assert again.jwks() == first.jwks()


def a_workload(folder: Path, **changed: str) -> Workload:
    region = Region("site-a", changed.pop("issuer", "http://127.0.0.1:1"), State(), Keyring(folder))
    names = {"namespace": "default", "job_id": "job-1", "group": "main", "task": "main", "alloc_id": "a1"} | changed
    return Workload(region, **names)


@pytest.mark.parametrize(("path", "namespace", "reads"), [
    (PATH, "default", True), (f"{PATH}/main", "default", True), (f"{PATH}/main/main", "default", True),
    ("nomad/jobs", "default", True), ("nomad/jobs/job-10", "default", False), ("nomad/jobs/job", "default", False),
    (f"{PATH}/other", "default", False), (PATH, "vo-bio", False), ("elsewhere", "default", False),
])  # fmt: skip
def test_a_workload_reads_at_its_own_paths_only(tmp_path: Path, path: str, namespace: str, reads: bool) -> None:
    workload = a_workload(tmp_path)
    row = {"Path": path, "Data": workload.region.keyring.seal(path, ITEMS)}
    workload.region.state.variables[namespace, path] = row
    assert workload.variable(path) == (ITEMS if reads else None)


def test_a_token_says_who_and_until_when(tmp_path: Path) -> None:
    identity = {"Name": "serai", "Audience": ["serai"], "TTL": 600 * 1_000_000_000}
    said = parse(a_workload(tmp_path).token(identity, START / 1e9), most_bytes=8_192).unverified
    assert said["sub"] == "site-a:default:job-1:main:main:serai"
    assert (said["exp"] - said["iat"], said["iss"], said["aud"]) == (600, "http://127.0.0.1:1", "serai")
    endless = identity | {"TTL": 0, "Audience": ["serai", "vault"]}
    said = parse(a_workload(tmp_path, issuer="").token(endless, START / 1e9), most_bytes=8_192).unverified
    assert ("exp" in said, "iss" in said, said["aud"]) == (False, False, ["serai", "vault"])
    assert (renew_in_s(identity), renew_in_s(endless)) == (300, None)


def template(text: str) -> dict[str, str]:
    return {"EmbeddedTmpl": text, "LeftDelim": "<<", "RightDelim": ">>"}


SECRET = '<<with nomadVar "nomad/jobs/job-1">><<(index . "a").Value | base64Decode>><<end>>'


def test_the_two_forms_of_templates(tmp_path: Path) -> None:
    assert render(template("no action"), lambda path: None) == b"no action"
    assert render(template('<<"">>'), lambda path: None) == b""
    assert render(template(SECRET), {PATH: ITEMS}.get) == CANARY.encode()
    assert render(template(SECRET.replace('"a"', '"b"')), {PATH: ITEMS}.get) == b""
    with pytest.raises(Missing) as missing:
        render(template(SECRET), lambda path: None)
    assert missing.value.path == PATH


@pytest.mark.parametrize("text", [
    '<<env "HOME">>', SECRET + "more", f"x{SECRET}", SECRET.replace("base64Decode", "toUpper"), '<<with nomadVar "a">>',
])  # fmt: skip
def test_every_other_template_is_refused(text: str) -> None:
    with pytest.raises(Unsupported):
        render(template(text), {PATH: ITEMS}.get)
