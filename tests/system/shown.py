"""The commands that a document shows its reader: those of its `console` blocks, in order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Shown:
    """One block; `line` is where it begins, `commands` has one shell command a line."""

    line: int
    heading: str
    commands: tuple[str, ...]


def blocks(path: Path) -> Iterator[Shown]:
    """The console blocks of a Markdown file."""
    text = path.read_text()
    for found in BLOCK.finditer(text):
        before = text[: found.start()]
        headings = HEADING.findall(re.sub(r"^```.*?^```$", "", before, flags=re.MULTILINE | re.DOTALL))
        lines = [line for line in found[1].splitlines() if line.strip() and not line.startswith("#")]
        yield Shown(before.count("\n") + 1, headings[-1] if headings else "", tuple(lines))


def script(shown: list[Shown]) -> str:
    """A shell script that says each command before it runs it, and ends with the first one that fails."""
    told = "".join(f"printf '\\n$ %s\\n' {quoted(line)}\n{line}\n" for block in shown for line in block.commands)
    return f"set -e\n{told}"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
