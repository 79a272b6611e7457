"""Does the time of a 404 tell whether there is a job? Hidden ones against absent ones, asked in turn, one by one.

What an attacker can do is ask often and compare. So both kinds are asked in random order on one connection, and told is
the difference of their medians, as a share of the median of two halves of the same kind: that is what noise alone does.
"""

import random
import time
from typing import Final
from uuid import uuid4

from bench import jobs, processes
from bench.results import Result, median

WARM: Final = 200


def measure(quick: bool) -> list[Result]:
    """`GET /v1/jobs/{id}` and its `/timeline` of somebody else's job, and of none."""
    rounds, asked = (1, 60) if quick else (5, 2_000)
    with processes.folder() as data, processes.platform(data, sites=jobs.SITES) as up:
        with up.client("alice") as owner:
            hidden = owner.post("/v1/jobs", json=jobs.job("bench-hide")).raise_for_status().headers["location"]
        found = [_round(up, str(hidden), suffix, asked) for suffix in ("", "/timeline") for _ in range(rounds)]
    method = (
        f"{rounds} rounds for the job itself and as many for its timeline, {asked} requests each on one connection by "
        "somebody outside the job's VO, hidden and absent ids in random order; difference of the two medians"
    )
    between = [each["between_us"] for each in found]
    within = [each["within_us"] for each in found]
    took = [each["median_us"] for each in found]
    return [
        Result(
            "404 of a hidden job against that of none, difference", median(between), "us", method,
            spread=(min(between), max(between)), denominator=median(took), denominator_is="median of all answers",
            goal=("at most", 0.02),
        ),
        Result(
            "the same between two halves of one kind: noise", median(within), "us", method,
            spread=(min(within), max(within)),
        ),
    ]  # fmt: skip


def _round(up: processes.Up, hidden: str, suffix: str, asked: int) -> dict[str, float]:
    order = random.Random(7)
    took: dict[str, list[float]] = {"hidden": [], "absent": []}
    with up.client("olga") as stranger:
        for number in range(WARM + asked):
            kind = order.choice(("hidden", "absent"))
            path = hidden if kind == "hidden" else f"/v1/jobs/{uuid4()}"
            began = time.perf_counter()
            answer = stranger.get(path + suffix)
            if number >= WARM:
                took[kind].append((time.perf_counter() - began) * 1e6)
            if answer.status_code != 404:
                raise RuntimeError(f"{path} was answered {answer.status_code}")
    halves = [median(took["absent"][0::2]), median(took["absent"][1::2])]
    return {
        "between_us": abs(median(took["hidden"]) - median(took["absent"])),
        "within_us": abs(halves[0] - halves[1]),
        "median_us": median(took["hidden"] + took["absent"]),
    }
