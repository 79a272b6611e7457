"""What is kept of a walk that went wrong: its folder with the databases of every life, and `report.txt` beside them."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.system.crash.oracle import Wrong

KEPT: Final = Path(__file__).parents[3] / ".serai-crashes"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9.#]+")


def keep(folder: Path, name: str, wrong: Sequence[Wrong], told: Mapping[str, Any]) -> Path:
    """Move the walk's folder to where it outlives the run; where that is."""
    kept = KEPT / _NOT_IN_NAMES.sub("-", name)
    shutil.rmtree(kept, ignore_errors=True)
    kept.parent.mkdir(exist_ok=True)
    shutil.move(folder, kept)
    parts = {"point": name, "wrong": [str(each) for each in wrong], **told}
    (kept / "report.txt").write_text("\n\n".join(f"{part}:\n{_text(value)}" for part, value in parts.items()) + "\n")
    return kept


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return "\n".join(each if isinstance(each, str) else json.dumps(each, default=str) for each in value)
    return json.dumps(value, indent=2, default=str)
