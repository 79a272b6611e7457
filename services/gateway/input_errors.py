"""What is wrong with an input, for people: where (JSON pointer), what, and how to mend it. Pure.

Pydantic finds the faults; here they get our words and the nearest known name.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import BaseModel

MOST_ERRORS: Final = 50
"""Errors told of one input; a file with more is told so in the last one."""

SYNONYMS: Final[Mapping[str, str]] = {
    "cmd": "command", "args": "command", "entrypoint": "command", "cpus": "cpu", "cores": "cpu", "ram": "memory",
    "mem": "memory", "timeout": "max_runtime", "walltime": "max_runtime", "time": "max_runtime", "container": "image",
    "docker": "image", "environment": "env", "inputs": "files", "gpu": "gpus", "tags": "labels", "ports": "endpoints",
    "type": "kind", "virtual_organisation": "vo", "group": "vo",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class InputError:
    """`pointer` is an RFC 6901 JSON pointer into what was sent."""

    pointer: str
    detail: str
    hint: str | None = None

    def document(self) -> dict[str, str]:
        told = {"pointer": self.pointer, "detail": self.detail}
        return told if self.hint is None else {**told, "hint": self.hint}


def pointer(location: Iterable[object]) -> str:
    """An RFC 6901 pointer from the parts of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1")[:120] for part in location)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A hint naming the known name that is most like `name`, or all of them when none is."""
    names = sorted(known)
    meant = SYNONYMS.get(name.lower())
    close = [meant] if meant in names else difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known here: {', '.join(names)}" if names else None


def from_pydantic(errors: Sequence[Mapping[str, Any]], model: type[BaseModel]) -> list[InputError]:
    """Pydantic's errors (`ValidationError.errors()`) about an input for `model` in our words."""
    return [_told(error, model) for error in errors]


def _told(error: Mapping[str, Any], model: type[BaseModel]) -> InputError:
    location = [part for part in error["loc"] if part != "[key]"]
    where = pointer(location)
    match error["type"]:
        case "extra_forbidden":
            name = str(location[-1])
            owner = _model_at(model, location[:-1])
            hint = nearest(name, _names(owner)) if owner else None
            return InputError(where, f"unknown field {name[:80]!r}", hint)
        case "missing":
            return InputError(where, f"the field {str(location[-1])!r} is required")
        case "value_error":
            return InputError(where, str(error["ctx"]["error"]))
        case "list_type" if location and location[-1] == "command" and isinstance(error.get("input"), str):
            hint = 'write each word by itself, ["python3", "train.py"], or use a shell: ["sh", "-c", "..."]'
            return InputError(where, "must be a list of words, not one string", hint)
    return InputError(where, _lower(str(error["msg"])))


def _names(model: type[BaseModel]) -> list[str]:
    """Its fields as people write them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _lower(message: str) -> str:
    words = message.removeprefix("Input ")
    return words[:1].lower() + words[1:]


def _model_at(model: type[BaseModel], location: Sequence[object]) -> type[BaseModel] | None:
    """The model whose field a path leads into, following lists and optional fields."""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):
            continue
        if current is None or part not in current.model_fields:
            return None
        current = _model_in(current.model_fields[str(part)].annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)


def documents(errors: Sequence[InputError]) -> list[dict[str, str]]:
    """The `errors` member of a problem: each place once, the first 50."""
    unique = list(dict.fromkeys(errors))
    told = [error.document() for error in unique[:MOST_ERRORS]]
    if len(unique) > MOST_ERRORS:
        told.append({"pointer": "", "detail": f"and {len(unique) - MOST_ERRORS} more errors"})
    return told


def sentence(errors: Sequence[InputError]) -> str:
    """The `detail` of a problem: the first errors in one sentence."""
    parts = [
        f"{error.pointer or '(the whole)'}: {error.detail}" + (f" ({error.hint})" if error.hint else "")
        for error in list(dict.fromkeys(errors))[:3]
    ]
    more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
    return ("; ".join(parts) + more)[:1000]
