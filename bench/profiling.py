"""Where the time goes on each path: reading, submitting, a whole job. Prints; docs/figures.md tells what follows."""

from collections.abc import Callable
from typing import Any, Final

from bench import jobs, processes
from bench.follow import Following
from bench.load import Load
from bench.processes import Up
from bench.reading import IN_FLIGHT, a_finished_job
from bench.whole_path import RATE, cpu_by_service, difference, follow

TOP: Final = 25


def profiles(quick: bool) -> str:
    """The three profiles as text."""
    seconds = 0.5 if quick else 8.0
    paths: dict[str, Callable[[Up, float], int]] = {"read": _read, "submit": _submit, "whole job": _whole}
    return "\n\n".join(_profile(name, path, seconds) for name, path in paths.items())


def _read(up: Up, seconds: float) -> int:
    return int(processes.load(Load(up.url + a_finished_job(up), IN_FLIGHT, seconds, headers=up.headers()))["requests"])


def _submit(up: Up, seconds: float) -> int:
    body = jobs.body(jobs.unplaceable())
    return int(processes.load(Load(f"{up.url}/v1/jobs", 64, seconds, "POST", up.headers(), body))["requests"])


def _whole(up: Up, seconds: float) -> int:
    told = follow(Following(up.url, up.headers(), RATE, max(seconds, 2.0), jobs.body(jobs.job())))
    return int(told["submitted"])


def _profile(name: str, path: Callable[[Up, float], int], seconds: float) -> str:
    """CPU by service and by function, in microseconds for one request or job."""
    with processes.folder() as data, processes.platform(data, sites=jobs.SITES, sampled=True) as up:
        path(up, min(seconds, 2.0))
        before = up.account_now()
        count = path(up, seconds)
        spent = difference(up.account_now(), before)
    whole = _us(spent["process_s"], count)
    lines = [f"{name}: {whole:,.0f} us of CPU each, {count} measured", "  by service:"]
    lines += _top(cpu_by_service(spent), count, 12)
    lines += ["  by library (whose function was at the top of the stack):", *_top(_libraries(spent["own"]), count, 14)]
    lines += ["  inside (service: function, with what it calls):", *_top(_telling(spent["lines"]), count, TOP)]
    lines += ["  at the top of the stack:", *_top(spent["own"], count, TOP)]
    return "\n".join(lines)


def _telling(lines: dict[str, Any]) -> dict[str, Any]:
    """Without what is below everything."""
    return {line: spent for line, spent in lines.items() if "services/__main__" not in line}


def _libraries(own: dict[str, Any]) -> dict[str, float]:
    """The same by first folder: `sqlalchemy`, `shared/runtime`, `asyncio` ..."""
    found: dict[str, float] = {}
    for place, seconds in own.items():
        parts = place.partition(":")[0].split("/")
        name = parts[1] if parts[0] in ("site-packages", "lib") and len(parts) > 1 else "/".join(parts[:2])
        name = parts[2].removesuffix(".py") if parts[0] == "lib" and len(parts) > 2 else name
        found[name] = found.get(name, 0.0) + seconds
    return found


def _top(spent: dict[str, Any], count: int, most: int) -> list[str]:
    ordered = sorted(spent.items(), key=lambda item: -item[1])[:most]
    return [f"    {_us(seconds, count):>8,.0f} us  {name}" for name, seconds in ordered if seconds > 0]


def _us(seconds: float, count: int) -> float:
    return seconds / max(1, count) * 1e6
