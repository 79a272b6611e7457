"""The client is its own small distribution: it speaks HTTP and knows none of the platform's code."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.fast
CLIENT = Path(__file__).parents[3] / "client"
MODULES = {"pyyaml": "yaml"}


def test_it_imports_only_what_it_declares() -> None:
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
    names = [line.partition(">")[0] for line in project["dependencies"]]
    allowed = {*(MODULES.get(name, name) for name in names), "serai", *sys.stdlib_module_names}
    used = {name for path in (CLIENT / "serai").rglob("*.py") for name in _imported(path)}
    assert used <= allowed
    assert set(names) == {"httpx2", "typer", "rich", "pyyaml", "platformdirs", "keyring"}


def _imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}
