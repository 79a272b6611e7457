"""Job files: YAML or JSON text to the job that the platform takes, and the platform's complaints back to lines.

What a job may contain is the platform's to say (`serai schema`); here only what belongs to the file itself: its
syntax, doubled keys, and `from:` entries of `files`, whose content is read in from beside the job file.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from serai.errors import BadJobFile, Fault, Problem
from serai.values import Json

INLINE_LIMIT: Final = 262_144
"""Bytes of one input file, the platform's own limit: larger inputs are fetched by the job itself."""


class _Loader(yaml.SafeLoader):
    """YAML as people mean it (the 1.2 rules): `NO` is Norway, `1:30` is text, only true and false are booleans."""


_TAG: Final = "tag:yaml.org,2002:"
_SURPRISING: Final = frozenset({_TAG + "bool", _TAG + "int", _TAG + "timestamp"})

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag not in _SURPRISING]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_TAG + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))


@dataclass(frozen=True, slots=True)
class JobFile:
    """One job, ready to send, and the tree of its file with the line numbers."""

    name: str
    job: Json
    tree: yaml.Node | None

    def line_of(self, pointer: str) -> int | None:
        """The line (from 1) of what a JSON pointer names, or of the nearest thing around it that is in the file."""
        if self.tree is None:
            return None
        node, line = self.tree, self.tree.start_mark.line + 1
        for part in _parts(pointer):
            step = _child(node, part)
            if step is None:
                break
            node, line = step
        return line

    def complaint(self, fault: Fault) -> str:
        """`job.yaml:7: resources.memroy: unknown field (did you mean 'memory'?)`."""
        parts = _parts(fault.pointer)
        field = "" if not parts or f"'{parts[-1]}'" in fault.detail else f"{_dotted(parts)}: "
        return f"{self._place(self.line_of(fault.pointer))}{field}{fault}"

    def complaints(self, problem: Problem) -> BadJobFile | None:
        """The platform's faults of this job as lines of the file; None when it names no places."""
        in_order = sorted(problem.errors, key=lambda fault: self.line_of(fault.pointer) or 0)
        return BadJobFile([self.complaint(fault) for fault in in_order]) if in_order else None

    def _place(self, line: int | None) -> str:
        return f"{self.name}:{line}: " if line else f"{self.name}: "


def load(path: Path) -> JobFile:
    """The job in the file at `path`. Raises BadJobFile."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        told = BadJobFile([f"{path}: {os.strerror(error.errno or 0)}"])
        raise told.then("check the path; without a file: `serai run -- COMMAND`") from error
    except UnicodeDecodeError as error:
        raise BadJobFile([f"{path}: is not UTF-8 text"]) from error
    return parse(text, str(path), path.parent)


def parse(text: str, name: str, folder: Path) -> JobFile:
    """The job in `text`; `from:` entries are looked up in `folder`. Raises BadJobFile."""
    tree, job = _read(text, name)
    if not isinstance(job, dict):
        raise BadJobFile([f"{name}:1: a job file holds one mapping: `name: ...`, `vo: ...`, `command: [...]`"])
    doubled = [f"{name}:{line}: field '{key}' is given twice" for key, line in _doubled(tree)] if tree else []
    if doubled:
        raise BadJobFile(doubled)
    file = JobFile(name, job, tree)
    return JobFile(name, _with_files(file, folder), tree)


def _read(text: str, name: str) -> tuple[yaml.Node | None, Any]:
    loader = _Loader(text)
    try:
        tree = loader.get_single_node()
        return tree, loader.construct_document(tree) if tree is not None else None
    except (yaml.YAMLError, ValueError) as error:
        if text.lstrip().startswith("{"):
            return None, _read_json(text, name)
        raise BadJobFile([_syntax(error, name)]) from error
    finally:
        loader.dispose()


def _read_json(text: str, name: str) -> Any:
    """JSON that YAML does not take (tabs between words, for one)."""
    try:
        return json.loads(text)
    except ValueError as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise BadJobFile([f"{name}{line}: not JSON: {getattr(error, 'msg', error)}"]) from error


def _syntax(error: Exception, name: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        hint = " (indent with spaces, not tabs)" if "'\\t'" in (error.problem or "") else ""
        return f"{name}:{error.problem_mark.line + 1}: not YAML: {error.problem or error.context}{hint}"
    return f"{name}: not YAML: {error}"


def _doubled(node: yaml.Node) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(getattr(key, "value", None) if isinstance(key, yaml.ScalarNode) else id(key))
            yield from _doubled(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _doubled(item)


# -- files --------------------------------------------------------------------------------------------------------


def _with_files(file: JobFile, folder: Path) -> Json:
    """The job with every `from:` replaced by the content of that file."""
    files = file.job.get("files")
    if not isinstance(files, list):
        return file.job
    faults: list[Fault] = []
    resolved = [_resolved(entry, f"/files/{index}", folder, faults) for index, entry in enumerate(files)]
    if faults:
        raise BadJobFile([file.complaint(fault) for fault in faults])
    return {**file.job, "files": resolved}


def _resolved(entry: Any, pointer: str, folder: Path, faults: list[Fault]) -> Any:
    if not isinstance(entry, dict) or "from" not in entry:
        return entry
    if "content" in entry:
        faults.append(Fault(f"{pointer}/from", "'from' and 'content' exclude each other"))
        return entry
    source = folder / str(entry["from"])
    kept = {name: value for name, value in entry.items() if name != "from"}
    try:
        return {**kept, "content": inline(source)}
    except BadJobFile as bad:
        faults.append(Fault(f"{pointer}/from", str(bad)))
        return entry


def inline(source: Path) -> str:
    """The text of an input file. Raises BadJobFile with one sentence when it cannot travel inside a job."""
    try:
        content = source.read_bytes()
    except OSError as error:
        raise BadJobFile([f"cannot read '{source}': {os.strerror(error.errno or 0)}"]) from error
    if len(content) > INLINE_LIMIT:
        raise BadJobFile([
            f"'{source}' has {len(content):,} bytes; an input file may have {INLINE_LIMIT:,} (256 KiB): "
            "put larger data where the job can fetch it"
        ])  # fmt: skip
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJobFile([f"'{source}' is not UTF-8 text; encode it (base64) and decode it in the job"]) from error


# -- pointers -----------------------------------------------------------------------------------------------------


def _parts(pointer: str) -> list[str]:
    """RFC 6901, also in its URI fragment form."""
    words = pointer.removeprefix("#").split("/")[1:]
    return [word.replace("~1", "/").replace("~0", "~") for word in words if word]


def _child(node: yaml.Node, part: str) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == part:
                return value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        item = node.value[int(part)]
        return item, item.start_mark.line + 1
    return None


def _dotted(parts: list[str]) -> str:
    """`["files", "0", "path"]` -> `files[0].path`."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts).lstrip(".")
