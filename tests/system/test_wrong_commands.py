"""Wrong commands: each is answered with a sentence that says what to type next and a documented exit code."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.auth import dev_issuer
from tests.system.processes import Ended, Up, run, up

MISSPELT_SITE = "- name: brno\n  contry: CZ\n  vos: [vo.bio.example]\n  cores: 1\n  memory_mib: 512\n"
MISSPELT_JOB = "name: hello\nvo: vo.climate.example\ncommand: [echo, hello]\nresources:\n  memroy: 1GiB\n"


@dataclass(frozen=True)
class Wrong:
    """A command line of the platform, and what its answer must say."""

    words: tuple[str, ...]
    code: int
    says: tuple[str, ...]


PLATFORM = {
    "unknown option": Wrong(("up", "--prot", "1"), 2, ("--prot", "--port", "up --help")),
    "unknown command": Wrong(("upp",), 2, ("Did you mean 'up'?",)),
    "unknown bus": Wrong(("up", "--bus", "kafka"), 2, ("'embedded' or 'amqp'",)),
    "absurd port": Wrong(("up", "--port", "99999"), 2, ("port", "65535")),
    "unwritable data folder": Wrong(("up", "--data", "{folder}/file/data"), 78, ("cannot write", "--data FOLDER")),
    "misspelt site": Wrong(
        ("up", "--sites", "{folder}/sites.yaml", "--data", "{folder}/data"), 78,
        ("sites.yaml:2: 'contry' is not known; did you mean 'country'?",),
    ),
    "no sites file": Wrong(
        ("up", "--sites", "{folder}/no.yaml", "--data", "{folder}/data"), 78, ("no.yaml: No such file", "docs/sites.md")
    ),
    "no nomad there": Wrong(
        ("up", "--nomad", "/nowhere/nomad", "--data", "{folder}/data"), 78, ("/nowhere/nomad", "--nomad embedded")
    ),
    "no nomad at all": Wrong(
        ("up", "--nomad", "/bin/true", "--data", "{folder}/data"), 78, ("is no nomad", "NOMAD=embedded")
    ),
    "no platform to break": Wrong(("fault", "lyon", "drop-stream", "--data", "{folder}/none"), 78, ("make up",)),
}  # fmt: skip


@pytest.fixture
def prepared(folder: Path) -> Path:
    """A folder with the wrong files."""
    (folder / "file").write_text("not a folder")
    (folder / "sites.yaml").write_text(MISSPELT_SITE)
    (folder / "job.yaml").write_text(MISSPELT_JOB)
    return folder


def expired_like(platform: Up) -> str:
    """The token that alice has, by its issuer, but an hour too old."""
    kept = json.loads((platform.folder / "config" / "tokens.json").read_text())[platform.gateway]["token"]
    header, claims, _ = kept.split(".")
    past = {name: value - 36_000 if name in ("exp", "iat", "nbf") else value for name, value in decoded(claims).items()}
    key = dev_issuer.kept_key(platform.folder / "data" / "dev-issuer-key.json")
    return dev_issuer.sign_access_token(key, decoded(header)["kid"], past)


def decoded(part: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return content


def check(ended: Ended, code: int, *says: str) -> None:
    assert ended.code == code, ended.told
    for words in says:
        assert words in ended.told, f"no {words!r} in {ended.told}"
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("case", PLATFORM)
async def test_a_wrong_command_of_the_platform(prepared: Path, case: str) -> None:
    wrong = PLATFORM[case]
    words = [word.format(folder=prepared) for word in wrong.words]
    check(await run("serai-platform", *words, folder=prepared), wrong.code, *wrong.says)


async def test_a_bus_without_its_broker_says_which_address_does_not_answer(prepared: Path) -> None:
    words = ("up", "--bus", "amqp", "--data", str(prepared / "data"), "--port", "18080")
    ended = await run("serai-platform", *words, folder=prepared, AMQP_URL="amqp://guest:secret@127.0.0.1:1/")
    check(ended, 78, "127.0.0.1:1 does not answer", "unset AMQP_URL", "--bus amqp")
    assert "secret" not in ended.err


async def test_the_exit_codes_are_documented_where_one_looks_for_them(folder: Path) -> None:
    platform, client = await run("serai-platform", "--help", folder=folder), await run("serai", "--help", folder=folder)
    for words in ("Exit codes", "78", "130"):
        assert words in platform.told
    for code in ("64", "65", "66", "69", "77", "78"):
        assert code in client.told


async def test_wrong_commands_of_a_researcher(prepared: Path) -> None:
    nobody = await run("serai", "jobs", folder=prepared, SERAI_URL="http://127.0.0.1:1")
    check(nobody, 69, "cannot reach http://127.0.0.1:1", "make up", "SERAI_URL")
    async with up(prepared) as platform:
        check(await platform.serai("jobs"), 77, "next: sign in: `serai login`")
        check(await platform.serai("jobs", SERAI_TOKEN="no.real.token"), 77, "serai login")
        check(await platform.serai("--url", "ftp://x", "jobs"), 78, "must begin with http:// or https://")
        assert (await platform.serai("login", "--user", "alice")).code == 0
        expired = expired_like(platform)
        check(await platform.serai("jobs", SERAI_TOKEN=expired), 77, "expired", "serai login", "SERAI_TOKEN")
        misspelt = await platform.serai("submit", str(prepared / "job.yaml"))
        check(misspelt, 65, f"{prepared}/job.yaml:5: ", "'memroy'", "did you mean 'memory'?", "serai schema")
        check(await platform.serai("jbos"), 64, "jobs", "--help")
        check(await platform.serai("job", "last"), 66, "you have no job yet")
        check(await platform.serai("job", "nonsense!"), 64, "'nonsense!' is no job id", "serai jobs")
        other = await platform.serai("run", "--vo", "vo.other.example", "--", "true")
        check(other, 77, "vo.other.example", "serai whoami")
        assert (await platform.serai("jobs", "-o", "json")).out.strip() == "[]", "nothing wrong left anything behind"
