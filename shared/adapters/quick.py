"""The same Core statements at the driver's speed: what bodies of a Store get as their connection.

Core spends two to four times on an `execute` what the driver does, and a job's way through the services takes some
sixty statements (docs/figures.md). A statement object that is executed a second time is one that its module built once:
it is compiled to SQL here and goes straight to the driver from then on. Everything else goes through Core, as do
statements that this module does not know how to run (`IN` lists beside other parameters, defaults made in Python,
a RETURNING that nobody wrote). Rows are SQLAlchemy's own, found by name or place, and fetched at once. Errors are
SQLAlchemy's.

How a compiled statement runs is the driver's matter: `sqlite_quick.py`, `postgres/quick.py`.
"""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Delete, Engine, Insert, LargeBinary, Select, Update
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.sql.compiler import SQLCompiler

Given = Mapping[str, Any]
Process = Callable[[Any], Any] | None

_KNOWN_KINDS: Final = (Select, Insert, Update, Delete)
NO_COLUMNS: Final = SimpleResultMetaData(())


class QuickResult(IteratorResult[Any]):
    """A SQLAlchemy result over rows that are here already; `rowcount` as the driver tells it."""

    def __init__(self, metadata: SimpleResultMetaData, rows: Sequence[Any], rowcount: int) -> None:
        super().__init__(metadata, iter(rows))
        self.rowcount = rowcount


@dataclass(slots=True)
class Plan:
    """A compiled statement. A slot is (name of the parameter or None, constant, what makes its value the driver's)."""

    sql: str
    slots: tuple[tuple[str | None, Any, Process], ...]
    types: tuple[Any, ...] | None
    """Types of the columns it gives; None for a statement that gives no rows."""
    writes: bool
    metadata: SimpleResultMetaData | None = None
    processes: tuple[tuple[int, Callable[[Any], Any]], ...] = ()

    def values(self, given: Given) -> list[Any]:
        """The driver's parameters. Raises KeyError when one is missing."""
        return [
            constant if name is None else given[name] if process is None else process(given[name])
            for name, constant, process in self.slots
        ]


@dataclass(slots=True)
class _Seen:
    """What is known of a statement object: its plans by dialect, names given, whether many rows are; None = Core's."""

    statement: "weakref.ref[Any]"
    plans: dict[tuple[str, tuple[str, ...], bool], Plan | None] = field(default_factory=dict)


class QuickConnection(Connection, ABC):
    """A connection in autocommit mode, of an engine whose parameters have places instead of names."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._kind = engine.dialect.name

    @abstractmethod
    def run(self, plan: Plan, values: list[Any], *, many: bool) -> QuickResult:
        """Run a statement, with many rows of values or one. Raises what SQLAlchemy makes of the driver's errors."""

    def execute(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """As `Connection.execute`."""
        many = isinstance(parameters, list | tuple)
        plan = self._plan(statement, parameters, many) if not options else None
        if plan is None:
            return super().execute(statement, parameters, **options)
        try:
            values: Any = [plan.values(row) for row in parameters] if many else plan.values(parameters or {})
        except KeyError:
            return super().execute(statement, parameters)  # which says what is missing
        return self.run(plan, values, many=many)

    def rows(self, plan: Plan, found: Sequence[Any], cursor: Any) -> QuickResult:
        """The rows that the driver found; its cursor describes them: names, and the driver's types."""
        if plan.metadata is None:
            plan.processes = self._processes(plan, [column[1] for column in cursor.description])
            plan.metadata = SimpleResultMetaData([column[0] for column in cursor.description])
        if plan.processes:
            found = [_processed(row, plan.processes) for row in found]
        return QuickResult(plan.metadata, found, -1)

    def _processes(self, plan: Plan, given: Sequence[Any]) -> tuple[tuple[int, Callable[[Any], Any]], ...]:
        assert plan.types is not None
        return tuple(
            (place, process)
            for place, (kind, type_given) in enumerate(zip(plan.types, given, strict=True))
            if not isinstance(kind, LargeBinary)  # the driver gives bytes
            and (process := kind.dialect_impl(self.dialect).result_processor(self.dialect, type_given)) is not None
        )

    def _plan(self, statement: Any, parameters: Any, many: bool) -> Plan | None:
        seen = _STATEMENTS.get(id(statement))
        if seen is None or seen.statement() is not statement:
            if isinstance(statement, _KNOWN_KINDS):
                _remember(statement)
            return None
        if many and not parameters:
            return None
        first: Given = parameters[0] if many else parameters or {}
        names = () if isinstance(statement, Select) else tuple(first)
        try:
            return seen.plans[self._kind, names, many]
        except KeyError:
            plan = seen.plans[self._kind, names, many] = self._made(statement, names, many)
            return plan

    def _made(self, statement: Any, names: tuple[str, ...], many: bool) -> Plan | None:
        """The plan, or None when Core must run the statement."""
        compiled = self._compiled(statement, names, many)
        if compiled is None:
            return None
        slots = tuple(self._slot(compiled, name) for name in compiled.positiontup or ())
        return Plan(str(compiled), slots, _types(statement), writes=not isinstance(statement, Select))

    def _compiled(self, statement: Any, names: tuple[str, ...], many: bool) -> SQLCompiler | None:
        told = {"dialect": self.dialect, "column_keys": list(names) or None, "for_executemany": many}
        compiled: SQLCompiler = statement.compile(**told)
        if compiled.post_compile_params:
            if any(bind.required for bind in compiled.binds.values()):
                return None
            compiled = statement.compile(**told, compile_kwargs={"render_postcompile": True})  # lists that never change
        return compiled if _is_plain(compiled) else None

    def _slot(self, compiled: SQLCompiler, name: str) -> tuple[str | None, Any, Process]:
        bind = compiled.binds.get(name)
        if bind is None:  # one value of a list
            return None, (compiled.params or {})[name], None
        kind = bind.type.dialect_impl(self.dialect)
        process = None if isinstance(kind, LargeBinary) else kind.bind_processor(self.dialect)
        if bind.required:
            return bind.key, None, process
        constant = bind.effective_value
        return None, constant if process is None else process(constant), None


_STATEMENTS: Final[dict[int, _Seen]] = {}
"""By the id of the statement object, as long as it lives."""


def _remember(statement: Any) -> None:
    key = id(statement)
    _STATEMENTS[key] = _Seen(weakref.ref(statement, lambda _: _STATEMENTS.pop(key, None)))


def _is_plain(compiled: SQLCompiler) -> bool:
    """Whether SQL and values are all that there is to it."""
    return not (
        compiled.literal_execute_params
        or compiled.escaped_bind_names
        or (compiled.effective_returning and not _returned(compiled.statement))
        or (compiled.isinsert and compiled.insert_prefetch)
        or (compiled.isupdate and compiled.update_prefetch)
    )


def _returned(statement: Any) -> tuple[Any, ...]:
    """The columns that it says to give back of what it writes."""
    return () if isinstance(statement, Select) else tuple(statement.exported_columns)


def _types(statement: Any) -> tuple[Any, ...] | None:
    columns = statement.selected_columns if isinstance(statement, Select) else _returned(statement)
    return tuple(column.type for column in columns) or None


def _processed(row: Sequence[Any], processes: Sequence[tuple[int, Callable[[Any], Any]]]) -> tuple[Any, ...]:
    values = list(row)
    for place, process in processes:
        values[place] = process(values[place])
    return tuple(values)
