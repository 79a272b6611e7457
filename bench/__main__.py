"""`make bench`: measure, print a table, keep the figures in `bench/results.json` and show them in `docs/figures.md`.

    python -m bench [--quick] [--out FILE] [NAME ...]

Names: see below. `--quick` only proves that each measurement works: its figures mean nothing and are not kept.
Exit code 0 when everything could be measured; whether goals are met is in the table, not in the exit code.
"""

import argparse
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import (
    authorising,
    deciding,
    filtering,
    hiding,
    idling,
    profiling,
    reading,
    real,
    results,
    submitting,
    telling,
    whole_path,
)
from bench.results import Result

BENCHES: Final[dict[str, Callable[[bool], list[Result]]]] = {
    "read": reading.measure,
    "accept": submitting.measure,
    "whole": whole_path.measure,
    "place": deciding.measure,
    "tell": telling.measure,
    "filter": filtering.measure,
    "hide": hiding.measure,
    "idle": idling.measure,
    "auth": authorising.measure,
    "real": real.measure,
    "slots": real.measure_slots,
}
ALONE: Final = frozenset({"real", "slots"})
"""Measured only when asked for by name: they need more than this project, or long."""
OUT: Final = Path(__file__).parent / "results.json"
DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "figures.md"


def main() -> int:
    """Run what was asked for, everything by default; one that fails does not keep the others from being measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the platform on this machine.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHES)}, or profile (prints, keeps nothing)"
    )
    parser.add_argument("--quick", action="store_true", help="prove that the measurements work; keep nothing")
    parser.add_argument("--out", type=Path, default=None, help=f"file of results (default {OUT.name} beside this)")
    given = parser.parse_args()
    if given.names == ["profile"]:
        print(profiling.profiles(given.quick))
        return 0
    unknown = sorted(set(given.names) - set(BENCHES))
    if unknown:
        parser.error(f"no such measurement: {', '.join(unknown)}; there are {', '.join(BENCHES)} and profile")
    measured, failed = _measured(given.names or [name for name in BENCHES if name not in ALONE], given.quick)
    print(results.table(measured))
    out = given.out or (None if given.quick else OUT)
    if out is not None:
        results.keep(measured, out, datetime.now(UTC))
        print(f"kept in {out}")
        if out == OUT:
            results.write_into(DOCUMENT, out, _machine())
    return 1 if failed else 0


def _machine() -> str:
    """Where and when, for the reader of the figures."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"with Python {platform.python_version()} on {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release().partition('-')[0]}; load average at the end of the last run {load}."
    )


def _measured(names: list[str], quick: bool) -> tuple[list[Result], list[str]]:
    measured: list[Result] = []
    failed: list[str] = []
    for name in names:
        began = time.monotonic()
        print(f"{name} ...", end=" ", flush=True)
        try:
            measured += BENCHES[name](quick)
        except Exception:  # shown, and the exit code says so: the others are measured all the same
            failed.append(name)
            traceback.print_exc()
        print(f"{time.monotonic() - began:.0f} s", flush=True)
    return measured, failed


if __name__ == "__main__":
    sys.exit(main())
