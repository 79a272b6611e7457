"""How long an attempt's news takes from the site's own event stream to a user's SSE client."""

from typing import Final

from bench import jobs, processes
from bench.follow import Following
from bench.results import Result
from bench.whole_path import follow

RATE: Final = 10.0


def measure(quick: bool) -> list[Result]:
    """Lag of `attempt.starting`, `attempt.running` and `attempt.succeeded`."""
    seconds = 2.0 if quick else 30.0
    with processes.folder() as data, processes.platform(data, sites=jobs.SITES) as up:
        following = Following(
            up.url, up.headers(), RATE, seconds, jobs.body(jobs.job(run_for="300ms")), agents=list(up.sites.values())
        )
        told = follow(following)
    if told["not_ended"] or told["gaps"]:
        raise RuntimeError(f"{told['not_ended']} jobs did not end, {told['gaps']} gaps in the stream")
    method = (
        f"mock jobs of 300 ms, {RATE:g} a second for {seconds:g} s; one process reads the sites' event streams and "
        f"GET /v1/events and notes when the bytes of each come; {told['told_all']['n']} attempt events"
    )
    every = told["told_all"]
    each = [
        Result(f"site's stream to SSE client, p50, attempt.{status}", told["told"][status]["p50_ms"], "ms", method)
        for status in ("starting", "running", "succeeded")
    ]
    return [
        Result("site's stream to SSE client, p50", every["p50_ms"], "ms", method, goal=("at most", 20)),
        Result("site's stream to SSE client, p99", every["p99_ms"], "ms", method, goal=("at most", 100)),
        Result("site's stream to SSE client, max", every["max_ms"], "ms", method),
        *each,
        Result("202 to succeeded beyond 300 ms of work, p50", told["to_end"]["p50_ms"] - 300, "ms", method),
    ]
