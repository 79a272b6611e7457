"""Reading an operator's YAML file into typed values; what is wrong is told with file, line and nearest known name.

For files that operators write (sites). Job files are the client's, which keeps its own reader.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from shared.errors import Misconfigured

T = TypeVar("T")


def read(path: Path, kind: TypeAdapter[T], what: str) -> T:
    """The content of the file. `what` says what it should be, for the message: "a list of sites".

    Raises Misconfigured with one line for each fault: `sites.yaml:2: 'contry' is not known; did you mean 'country'?`
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        found = yaml.safe_load(text)
    except OSError as error:
        raise Misconfigured(f"{path}: {os.strerror(error.errno or 0)}; it should be {what}") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path}: is not UTF-8 text; it should be {what}") from error
    except yaml.YAMLError as error:
        raise Misconfigured(f"{_place(path, error)}: not YAML: {getattr(error, 'problem', None) or error}") from error
    try:
        return kind.validate_python(found)
    except ValidationError as error:
        known = frozenset(_names(kind.json_schema()))
        faults = [f"{path}:{line_of(tree, each['loc'])}: {_words(each, known, what)}" for each in error.errors()]
        raise Misconfigured("\n".join(dict.fromkeys(faults))) from error


def line_of(tree: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line, from 1, of what a path of keys and numbers leads to, or of the nearest thing around it."""
    if tree is None:
        return 1
    line, node = tree.start_mark.line + 1, tree
    for part in location:
        step = next(((mark, child) for name, mark, child in _children(node) if name == part), None)
        if step is None:
            break
        line, node = step
    return line


def _children(node: yaml.Node) -> Iterator[tuple[int | str, int, yaml.Node]]:
    """Name or number, line and node of each thing in a node."""
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), key.start_mark.line + 1, value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from ((number, item.start_mark.line + 1, item) for number, item in enumerate(node.value))


def _place(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{path}:{mark.line + 1}" if mark is not None else str(path)


def _names(schema: Any) -> Iterator[str]:
    """Every field name that a JSON schema knows."""
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            yield from properties
        for value in schema.values():
            yield from _names(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _names(value)


def _words(fault: Any, known: frozenset[str], what: str) -> str:
    name = str(fault["loc"][-1]) if fault["loc"] else ""
    match fault["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known))}"
            return f"'{name}' is not known; {hint}"
        case "missing":
            return f"the field '{name}' is required"
        case "tuple_type" | "list_type" | "model_type" | "dict_type" if len(fault["loc"]) < 2:
            return f"this is not {what}"
        case "string_pattern_mismatch":
            return f"{name}: {fault['input']!r} does not have the form {fault['ctx']['pattern']}"
        case "value_error":  # of a whole thing: the sentence names it, and its input may hold secrets
            return str(fault["msg"]).removeprefix("Value error, ")
    message = str(fault["msg"]).removeprefix("Input ")
    if "token" in name or "secret" in name or isinstance(fault["input"], list | dict):
        return f"{name}: {message}"
    return f"{name}: {message}, not {fault['input']!r}" if name else message
