"""Which store the services' tests run on.

The modules in `ON_BOTH` run twice, on SQLite and on PostgreSQL; `--store=postgres` runs everything that opens a store
on PostgreSQL, `--store=sqlite` nothing. The fast set never needs a server.
"""

import gc
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog

from shared.adapters.postgres import throwaway
from shared.runtime import logs
from tests import examples, leftovers, postgres, sharing, stores

gc.disable()  # while modules are imported and tests collected, which makes a lot and leaves nothing
sys.dont_write_bytecode = False  # else every process of every run rewrites the asserts of all modules again

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a run in the background; its programs would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.load_profile(examples.NEW)

NEVER_FAST = frozenset({"scenarios", "system", "ports/engine", "ports/agent_recordings"})

RUN = pytest.StashKey[str | None]()
HERE = Path(__file__).parent
UNIT = HERE / "unit"
ON_BOTH = (
    "auth/test_secrets.py",
    "auth/test_service.py",
    "auth/test_signing_keys.py",
    "gateway/test_keeping.py",
    "gateway/test_listing.py",
    "gateway/test_progress.py",
    "gateway/test_streams.py",
    "gateway/test_submitting.py",
    "monitor/test_keeping_live.py",
    "monitor/test_store.py",
    "monitor/test_watching_live.py",
    "scheduler/test_histories.py",
    "scheduler/test_secrets.py",
    "scheduler/test_store.py",
)
ON_POSTGRES = pytest.param(stores.POSTGRES, marks=pytest.mark.postgres)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--store", choices=("both", stores.SQLITE, stores.POSTGRES), default="both", help=__doc__)
    parser.addoption("--long", action="store_true", help="fault tests on real parts: for 60 s instead of some")
    parser.addoption("--all-points", action="store_true", help="crash tests: at every call instead of a sample of them")
    parser.addoption(
        "--crash-at", default="", help="crash tests: at this point alone, e.g. 'after bus.publish by x #2'"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """One process more than there are cores, as many a test waits for a moment; `-n 0` keeps all in one process.

    The tests of the fast set share nothing, those of the other what `sharing.py` says.
    """
    dist = {"fast": "worksteal", "not fast": "loadscope"}.get(config.option.markexpr)
    alone = hasattr(config, "workerinput") or config.option.numprocesses is not None or config.option.usepdb
    if dist and not alone:
        config.option.numprocesses, config.option.dist = 1 + (os.cpu_count() or 1), dist
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    return sharing.InRooms(config, log) if config.option.dist == "loadscope" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: sharing.rank(item.nodeid))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.option.markexpr == "fast" and _never_fast(collection_path) else None


def _never_fast(path: Path) -> bool:
    """Rooms, and modules with units, that the fast set need not even import."""
    if str(path.relative_to(HERE)) in NEVER_FAST:
        return True
    return path.is_relative_to(UNIT) and path.name.startswith("test_") and "mark.fast" not in path.read_text()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported and collected lives as long as the run: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """One look for what was left behind; pytest's own five need not go over everything again."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite_only(reason): not run on PostgreSQL")
    config.stash[RUN] = leftovers.mark(os.environ)
    if config.option.markexpr != "fast":
        config.pluginmanager.register(importlib.import_module("tests.told"))


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run and (left := leftovers.end(run)):
        print("ended what the tests left running:", *left, sep="\n  ")
    if config.option.markexpr == "fast" and not config.getoption("--hypothesis-profile"):
        hypothesis.settings.load_profile(examples.SOME)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store_kind" not in metafunc.fixturenames:
        return
    wanted = metafunc.config.getoption("--store")
    if not metafunc.definition.path.is_relative_to(UNIT):
        return
    if metafunc.definition.get_closest_marker("sqlite_only"):
        return
    module = str(metafunc.definition.path.relative_to(UNIT))
    if wanted == stores.POSTGRES:
        metafunc.parametrize("store_kind", [ON_POSTGRES], indirect=True)
    elif wanted == "both" and module in ON_BOTH and metafunc.config.option.markexpr != "fast":
        metafunc.parametrize("store_kind", [stores.SQLITE, ON_POSTGRES], indirect=True)


@pytest.fixture(autouse=True)
def store_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """What this test's stores are."""
    kind = getattr(request, "param", stores.SQLITE)
    if kind == stores.POSTGRES and throwaway.installed() is None:
        pytest.skip(postgres.MISSING)
    with stores.of_kind(kind):
        yield kind


@pytest.fixture(autouse=True)
def logs_as_at_first() -> Iterator[None]:
    """A test that sets up logging, as every command does, decides for itself alone which lines are told."""
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def written() -> io.StringIO:
    """Everything is logged, as loudly as it can be, and kept here."""
    said = io.StringIO()
    logs.configure("debug")
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(said))
    return said


@pytest.fixture(autouse=True, scope="session")
def no_server_outlives_the_run() -> Iterator[None]:
    yield
    postgres.stop_shared()
