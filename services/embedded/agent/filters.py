"""`filter=` expressions, the few forms that the platform uses, over full rows.

Grammar: comparisons with `==`, `!=`, `contains`, `matches`, `not matches`, `is empty`, `is not empty`, `"x" in Field`;
joined by `and`, `or`, `not` and parentheses. Fields are dotted or bracketed paths (`Meta.a`, `Meta["a-b"]`).
Pure.
"""

import re
from collections.abc import Callable
from typing import Any

from .rows import thawed

Test = Callable[[Any], bool]
_TOKEN = re.compile(r'\s*(?:(==|!=|\(|\)|\[|\]|\.)|"((?:[^"\\]|\\.)*)"|`([^`]*)`|([A-Za-z_][\w-]*|-?\d+(?:\.\d+)?))')
_ABSENT = object()
UNREADABLE = "failed to create result paginator: failed to read filter expression: "


class FilterError(ValueError):
    """The expression is not one of ours, or names no field."""


def parse(text: str) -> Test:
    """The test that an expression stands for. Raises FilterError."""
    parser = _Parser(_tokens(text))
    test = parser.disjunction()
    if parser.rest():
        raise FilterError(f"{UNREADABLE}no match found near {parser.rest()[0][1]!r}")
    return test


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens = []
    place = 0
    while place < len(text.rstrip()):
        found = _TOKEN.match(text, place)
        if not found:
            raise FilterError(f"{UNREADABLE}1:{place + 1}: no match found")
        place = found.end()
        symbol, quoted, raw, word = found.groups()
        if symbol:
            tokens.append(("symbol", symbol))
        elif word is not None:
            tokens.append(("word", word))
        else:
            tokens.append(("value", raw if raw is not None else re.sub(r"\\(.)", r"\1", quoted)))
    return tokens


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._place = 0

    def rest(self) -> list[tuple[str, str]]:
        return self._tokens[self._place :]

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._place] if self._place < len(self._tokens) else ("end", "")

    def _take(self) -> tuple[str, str]:
        token = self._peek()
        self._place += 1
        return token

    def _accept(self, *words: str) -> bool:
        here = [t[1] for t in self._tokens[self._place : self._place + len(words)] if t[0] != "value"]
        if here == list(words):
            self._place += len(words)
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise FilterError(f"{UNREADABLE}no match found, expected: {text!r}")

    def disjunction(self) -> Test:
        tests = [self._conjunction()]
        while self._accept("or"):
            tests.append(self._conjunction())
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def _conjunction(self) -> Test:
        tests = [self._single()]
        while self._accept("and"):
            tests.append(self._single())
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def _single(self) -> Test:
        if self._accept("not"):
            inner = self._single()
            return lambda row: not inner(row)
        if self._accept("("):
            inner = self.disjunction()
            self._expect(")")
            return inner
        if self._peek()[0] == "value":
            return self._membership()
        return self._comparison(self._selector())

    def _membership(self) -> Test:
        value = self._take()[1]
        negated = self._accept("not", "in")
        if not negated:
            self._expect("in")
        path = self._selector()
        return lambda row: (value in (_get(row, path, ()) or ())) is not negated

    def _selector(self) -> list[str]:
        kind, text = self._take()
        if kind != "word":
            raise FilterError("{UNREADABLE}no match found, expected: a field")
        path = [text]
        while True:
            if self._accept("."):
                path.append(self._take()[1])
            elif self._accept("["):
                path.append(self._take()[1])
                self._expect("]")
            else:
                return path

    def _comparison(self, path: list[str]) -> Test:
        for words, make in _OPERATORS:
            if self._accept(*words):
                return make(path, None if words[0] == "is" else self._value())
        raise FilterError("{UNREADABLE}no match found, expected: an operator")

    def _value(self) -> str:
        kind, text = self._take()
        if kind not in ("value", "word"):
            raise FilterError("{UNREADABLE}no match found, expected: a value")
        return text


def _equal(path: list[str], value: Any) -> Test:
    return lambda row: _text(_get(row, path)) == value


def _unequal(path: list[str], value: Any) -> Test:
    return lambda row: _text(_get(row, path)) != value


def _matches(path: list[str], value: Any) -> Test:
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise FilterError(f"failed to compile regular expression {value!r}: {error}") from error
    return lambda row: isinstance(found := _get(row, path), str) and pattern.search(found) is not None


def _unmatched(path: list[str], value: Any) -> Test:
    inner = _matches(path, value)
    return lambda row: not inner(row)


def _contains(path: list[str], value: Any) -> Test:
    return lambda row: value in (_get(row, path, ()) or ())


def _empty(path: list[str], value: Any) -> Test:
    return lambda row: not _get(row, path, None)


def _not_empty(path: list[str], value: Any) -> Test:
    return lambda row: bool(_get(row, path, None))


_OPERATORS: list[tuple[tuple[str, ...], Callable[[list[str], Any], Test]]] = [
    (("==",), _equal), (("!=",), _unequal), (("not", "matches"), _unmatched), (("matches",), _matches),
    (("contains",), _contains), (("is", "not", "empty"), _not_empty), (("is", "empty"), _empty),
]  # fmt: skip


def _get(row: Any, path: list[str], default: Any = _ABSENT) -> Any:
    """The value at a path; a missing key of a map is absent, a missing field of a row an error, as in Nomad."""
    value = row
    for place, part in enumerate(path):
        value = thawed(value)
        if not isinstance(value, dict) or part not in value:
            if place == 0:
                raise FilterError(
                    f"failed to read result page: error finding value in datum: /{'/'.join(path)} at part 0: "
                    f'couldn\'t find key: struct field with name "{part}"'
                )
            return default
        value = value[part]
    return thawed(value)


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value
