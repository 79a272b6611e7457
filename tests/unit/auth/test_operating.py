"""The operators' commands over a real socket: suspend, policies, and a log that is proven where the operator sits."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from services.__main__ import app
from services.auth.demo_users import CLIMATE
from shared.runtime.clock import system_clock
from shared.runtime.serving import HttpServer
from tests.builders import TestClock, a_job
from tests.free_ports import free_port
from tests.unit.auth.world import FakeIssuer, auth, entitlement, item_for

pytestmark = pytest.mark.fast


async def served(tmp_path: Path, work: Callable[[str, FakeIssuer], None], clock: TestClock | None = None) -> None:
    """Run `work` in a thread, as an operator's shell would, against auth on a socket."""
    issuer = FakeIssuer()
    if clock is not None:
        issuer.began = clock()
    async with auth(tmp_path, issuer, clock=clock) as running:
        port = free_port(25_000)
        server = HttpServer(running.service.app, "127.0.0.1", port)
        await server.start()
        await running.grant(issuer.token(), item_for(a_job(), CLIMATE))
        await asyncio.to_thread(work, server.address, issuer)
        await server.stop()


def command(url: str, token: str, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--auth", url], env={"SERAI_TOKEN": token})


def admin(issuer: FakeIssuer, **changed: Any) -> str:
    return issuer.token(**({"sub": "root", "entitlements": [entitlement("serai-platform", "admin")]} | changed))


async def test_suspending_listing_and_lifting(tmp_path: Path) -> None:
    def work(url: str, issuer: FakeIssuer) -> None:
        token = admin(issuer)
        made = command(url, token, "suspend", "vo", "--vo", CLIMATE, "--reason", "incident 7")
        assert made.exit_code == 0, made.output
        id = made.output.split()[-1]
        assert f"vo {CLIMATE}: incident 7; by root of {issuer.url}; holds until lifted" in (
            command(url, token, "suspensions", "list").output
        )
        assert command(url, token, "suspensions", "lift", id).output == "lifted\n"
        again = command(url, token, "suspensions", "lift", id)
        assert (again.exit_code, "no such suspension" in again.output) == (1, True)
        assert command(url, token, "suspend", "vo", "--reason", "x y z").exit_code == 1
        refused = command(url, issuer.token(), "suspend", "vo", "--vo", CLIMATE, "--reason", "because")
        assert refused.exit_code == 1
        assert "needs the platform role admin" in refused.output

    await served(tmp_path, work)


async def test_b2_suspensions_that_a_restored_database_has_forgotten_are_made_again_from_an_export(
    tmp_path: Path,
) -> None:
    export, clock = tmp_path / "audit.ndjson", TestClock(system_clock())

    def before(url: str, issuer: FakeIssuer) -> None:
        token = admin(issuer)
        for words in (
            ("vo", "--vo", CLIMATE, "--reason", "in the backup too"),
            ("subject", "--value", "mallory", "--for-s", "1e6"), ("subject", "--value", "lifted"),
            ("client", "--value", "app", "--stop-running"),
            ("subject", "--value", "over", "--for-s", "0.001"),
        ):  # fmt: skip
            more = () if words[0] == "vo" else ("--issuer", issuer.url, "--reason", "stolen laptop")
            made = command(url, token, "suspend", *words, *more)
            assert made.exit_code == 0, made.output
            if "lifted" in words:
                command(url, token, "suspensions", "lift", made.output.split()[-1])
        export.write_text(command(url, token, "audit", "export").output)

    def after(url: str, issuer: FakeIssuer) -> None:
        token = admin(issuer)
        command(url, token, "suspend", "vo", "--vo", CLIMATE, "--reason", "in the backup too")
        told = command(url, token, "suspensions", "replay", str(export))
        assert told.exit_code == 0, told.output
        assert [line.split("  ")[1] for line in told.output.splitlines()] == [
            "subject mallory: stolen laptop", "client app: stolen laptop"
        ]  # fmt: skip
        assert command(url, token, "suspensions", "replay", str(export)).output == ""
        export.write_text(export.read_text().replace("mallory", "nobody"))
        assert "was changed after it was written" in command(url, token, "suspensions", "replay", str(export)).output
        for wrong in (b"", b"{", b'{"position": 1}'):
            export.write_bytes(wrong)
            assert command(url, token, "suspensions", "replay", str(export)).exit_code == 78

    (tmp_path / "restored").mkdir()
    await served(tmp_path, before, clock=clock)
    await served(tmp_path / "restored", after, clock=clock)


async def test_a_policy_is_tried_and_set_from_a_file(tmp_path: Path) -> None:
    def work(url: str, issuer: FakeIssuer) -> None:
        token = issuer.token(entitlements=[entitlement(CLIMATE, "manager")])
        file = tmp_path / "policy.yaml"
        file.write_text(yaml.safe_dump({"sites": ["prague"]}))
        tried = json.loads(command(url, token, "policy", "set", CLIMATE, str(file), "--dry-run").output)
        assert tried["differences"] == [{"pointer": "/sites", "before": None, "after": ["prague"]}]
        assert json.loads(command(url, token, "policy", "show", CLIMATE).output)["version"] == 0
        assert json.loads(command(url, token, "policy", "set", CLIMATE, str(file)).output)["version"] == 1
        file.write_text("sites: 7")
        wrong = command(url, token, "policy", "set", CLIMATE, str(file))
        assert (wrong.exit_code, "/sites" in wrong.output) == (1, True)
        assert command(url, token, "policy", "set", CLIMATE, str(tmp_path / "absent")).exit_code == 78

    await served(tmp_path, work)


async def test_the_log_is_proven_from_auth_and_from_an_export(tmp_path: Path) -> None:
    def work(url: str, issuer: FakeIssuer) -> None:
        token = admin(issuer)
        for number in range(5):
            command(
                url, token, "suspend", "subject", "--issuer", issuer.url, "--value", f"u{number}", "--reason", "test"
            )
        assert "the audit log holds: 6 records" in command(url, token, "audit", "verify").output
        file = tmp_path / "log.ndjson"
        file.write_text(command(url, token, "audit", "export").output)
        assert CliRunner().invoke(app, ["audit", "verify", str(file)]).exit_code == 0
        file.write_text(file.read_text().replace('"u3\\"', '"u4\\"'))
        changed = CliRunner().invoke(app, ["audit", "verify", str(file)])
        assert (changed.exit_code, "was changed after it was written" in changed.output) == (1, True)

    await served(tmp_path, work)


def test_an_operator_who_says_neither_where_nor_who_is_told_both(tmp_path: Path) -> None:
    nowhere = CliRunner().invoke(app, ["audit", "verify", "--data", str(tmp_path)], env={"SERAI_TOKEN": "x"})
    assert (nowhere.exit_code, "where is auth?" in nowhere.output) == (78, True)
    nobody = CliRunner().invoke(app, ["audit", "verify", "--auth", "http://127.0.0.1:9"], env={"SERAI_TOKEN": ""})
    assert (nobody.exit_code, "who are you?" in nobody.output) == (78, True)
    away = CliRunner().invoke(app, ["audit", "verify", "--auth", "http://127.0.0.1:9"], env={"SERAI_TOKEN": "x"})
    assert (away.exit_code, "does not answer" in away.output) == (1, True)
