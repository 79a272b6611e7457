"""`serai-platform namespaces`: its printed commands, and its own making, give a site all that our services need."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shared.adapters.nomad import local_binary
from shared.adapters.nomad.policies import FINER_SINCE, Role
from shared.engine import Heartbeat
from tests.ports.engine.site import an_order, of_region
from tests.real_nomad import RealNomad, real_nomad

pytestmark = pytest.mark.nomad
COMMAND = [sys.executable, "-m", "services", "namespaces", "prague", "--vo", "eosc-synergy.eu"]


@pytest.fixture(scope="module")
def region() -> Iterator[RealNomad]:
    """A site that has heard nothing of us."""
    with real_nomad(name="prague", guarded=True) as found:
        for role in Role:
            found.operator.ask("DELETE", f"/v1/acl/policy/{role}")
        yield found


def environment(region: RealNomad) -> dict[str, str]:
    assert region.authority is not None
    binary = local_binary.installed()
    assert binary is not None
    return {
        "PATH": f"{binary.parent}:{os.environ['PATH']}", "NOMAD_ADDR": region.address, "NOMAD_TOKEN": region.token,
        "NOMAD_CACERT": str(region.authority.file), "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip


def ran(command: list[str], region: RealNomad, given: str = "", **more: str) -> str:
    done = subprocess.run(
        command, input=given, env=environment(region) | more, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_what_it_prints_is_all_that_a_site_needs(region: RealNomad) -> None:
    older = region.operator.version() < FINER_SINCE
    script = ran([*COMMAND, *(["--before-1-11-2"] if older else [])], region)
    told = ran(["sh", "-eu"], region, script)
    secrets = re.findall(r"^Secret ID\s*= (\S+)$", told, re.MULTILINE)
    region.tokens = dict(zip(Role, secrets, strict=True))
    async with of_region(region) as site:
        order = an_order()
        assert await site.engine.namespaces() == {"eosc--synergy-eu"}
        assert await anext(site.watch.stream(0)) == Heartbeat()
        await site.engine.close(order.attempt, "eosc--synergy-eu")


def test_it_makes_what_is_missing_and_says_what_was_there(region: RealNomad) -> None:
    told = [ran([*COMMAND, "--vo", "vo.new.example", "--create"], region) for _ in range(2)]
    assert "namespace vo-new-example (vo.new.example): made" in told[0]
    assert "namespace vo-new-example (vo.new.example): there before" in told[1]
    assert {"vo-new-example", "eosc--synergy-eu"} <= region.operator.namespaces()


def test_a_token_that_may_not_is_said_so(region: RealNomad) -> None:
    weak = region.operator.make_token("weak", "nothing")
    done = subprocess.run(
        [*COMMAND, "--create"], env=environment(region) | {"NOMAD_TOKEN": weak}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert "management token" in done.stderr
