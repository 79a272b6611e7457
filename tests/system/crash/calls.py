"""Every method of every port, read from the Protocols themselves: a new one is part of the crash tests at once.

`kind` says how a call is come between: a coroutine is awaited, a context manager is entered, an iterator gives items.
"""

import inspect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from enum import Enum
from functools import cache
from typing import Any, Final, get_origin, get_type_hints

from shared import ports

CRASHED_PORTS: Final = {
    "bus": ports.MessageBus,
    "engine": ports.JobEngine,
    "watch": ports.EngineWatch,
    "registry": ports.SiteRegistry,
    "auth.store": ports.Store,
    "scheduler.store": ports.Store,
    "monitor.store": ports.Store,
    "gateway.store": ports.Store,
}
"""The names under which the embedded platform hands its ports to `around`."""


class Kind(Enum):
    CALL = "call"
    CONTEXT = "context"
    ITERATOR = "iterator"
    VALUE = "value"


@cache
def methods(protocol: type) -> dict[str, Kind]:
    """The methods of a port and what each returns."""
    found = {name: _kind(member) for name, member in vars(protocol).items() if not name.startswith("_")}
    return {name: kind for name, kind in found.items() if kind is not None}


def _kind(member: Any) -> Kind | None:
    if isinstance(member, property):
        return Kind.VALUE
    if inspect.iscoroutinefunction(member):
        return Kind.CALL
    if not inspect.isfunction(member):
        return None
    returned = get_origin(get_type_hints(member, vars(ports))["return"])
    return {AsyncIterator: Kind.ITERATOR, AbstractAsyncContextManager: Kind.CONTEXT}[returned]


def every_method() -> set[str]:
    """`MessageBus.publish` and so on, of all Protocols in `shared/ports.py`."""
    own = [each for each in vars(ports).values() if getattr(each, "__module__", "") == ports.__name__]
    protocols = [each for each in own if getattr(each, "_is_protocol", False)]
    return {
        f"{each.__name__}.{name}"
        for each in protocols
        for name, kind in methods(each).items()
        if kind is not Kind.VALUE
    }
