"""Does the time of a 404 tell whether there is a job? Hidden ones against absent ones, asked in turn, one by one.

What an attacker can do is ask often and compare. So both kinds are asked in random order on one connection, and told is
how often a hidden one took longer than an absent one, over all pairs of a round (the Mann-Whitney statistic as a
share): 0.5 where time tells nothing, 1 where it tells all. It is blind to the machine's mood, which meets both alike.
"""

import random
import time
from bisect import bisect_left, bisect_right
from typing import Final
from uuid import uuid4

from bench import jobs, processes
from bench.results import Result, median

WARM: Final = 200
TELLS_NOTHING: Final = 0.03
"""Two and a half standard deviations of the statistic for one round of 2,000 where there is no difference at all."""


def measure(quick: bool) -> list[Result]:
    """`GET /v1/jobs/{id}` and its `/timeline` of somebody else's job, and of none."""
    rounds, asked = (1, 60) if quick else (5, 2_000)
    with processes.folder() as data, processes.platform(data, sites=jobs.SITES) as up:
        with up.client("alice") as owner:
            hidden = owner.post("/v1/jobs", json=jobs.job("bench-hide")).raise_for_status().headers["location"]
        found = [_round(up, str(hidden), suffix, asked) for suffix in ("", "/timeline") for _ in range(rounds)]
    method = (
        f"{rounds} rounds for the job itself and as many for its timeline, {asked} requests each on one connection by "
        "somebody outside the job's VO, hidden and absent ids in random order; over all pairs of a round the share in "
        "which the hidden one took longer, its distance from one half"
    )
    told = [abs(each["longer"] - 0.5) for each in found]
    return [
        Result(
            "does the time tell a hidden job from none? (0 = no, 0.5 = yes)", median(told), "of 0.5", method,
            spread=(min(told), max(told)), goal=("at most", TELLS_NOTHING),
        ),
        Result("404 of a hidden or absent job, one at a time", median([e["median_us"] for e in found]), "us", method),
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
    return {
        "longer": _share_longer(took["hidden"], took["absent"]),
        "median_us": median(took["hidden"] + took["absent"]),
    }


def _share_longer(some: list[float], others: list[float]) -> float:
    """Over all pairs, how often one of `some` is greater than one of `others`; equal ones count half."""
    ordered = sorted(others)
    beaten = sum(bisect_left(ordered, each) + bisect_right(ordered, each) for each in some)
    return beaten / (2 * len(some) * len(others))
