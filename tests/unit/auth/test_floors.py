"""Versions below which a published weakness would concern us: no lock file may go under them."""

import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast
ROOT = Path(__file__).parents[3]
FLOORS = {"authlib": (1, 7, 1), "joserfc": (1, 7, 4), "pyjwt": (2, 13, 0), "starlette": (1, 0, 1)}
"""Authlib: CVE-2024-37568 to 2026-28498 and the redirects of 1.7.1. joserfc: CVE-2025-65015. PyJWT: CVE-2026-48522 to
48526. Starlette: CVE-2025-62727, 2026-48710."""
NEVER = {"python-jose", "ecdsa"}
"""CVE-2024-33663, 2024-33664, 2024-23342: not mended."""


def locked(name: str) -> dict[str, tuple[int, ...]]:
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([0-9.]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {each.lower(): tuple(map(int, version.strip(".").split("."))) for each, version in found}


def test_what_is_asked_for_is_not_below_the_floors_either() -> None:
    """Who installs without the lock files gets nothing older."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    least = {each.split(">=")[0]: each.split(">=")[1].split(",")[0] for each in asked if ">=" in each}
    found = {name: tuple(map(int, version.split("."))) for name, version in least.items() if name in FLOORS}
    assert found.keys() == {"authlib", "joserfc"}, "Starlette comes with FastAPI, which asks for more"
    assert {name: version for name, version in found.items() if version < FLOORS[name]} == {}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_no_lock_file_goes_below_the_floors(name: str) -> None:
    versions = locked(name)
    assert {"authlib", "joserfc", "starlette"} <= versions.keys()
    assert {each: versions[each] for each, floor in FLOORS.items() if versions.get(each, floor) < floor} == {}
    assert not NEVER & versions.keys()
