"""The processes of a measurement: the platform as users get it, the bare denominator, the load. None is left behind."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx2 as httpx
import yaml

from bench import machine
from bench.load import Load

ROOT: Final = Path(__file__).parents[1]
VO: Final = "vo.climate.example"
UNLIMITED: Final = {f"SERAI_GATEWAY_RATE_{name}": "1000000/second" for name in ("READS", "CHANGES", "VO_JOBS")}
"""One user stands for many: every request is counted as always, but none is refused."""
READY_S: Final = 60.0
END_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Up:
    """A running platform. `pid` is the platform's own process, whoever started it."""

    url: str
    issuer: str
    sites: dict[str, str]
    pid: int
    took_s: float
    """From the start of the process to its first line."""
    account: Path | None = None

    def token(self, user: str = "alice") -> str:
        """A token as the demo's users get theirs."""
        answer = httpx.post(f"{self.issuer}/demo/token", data={"user": user}, timeout=10, trust_env=False)
        return str(answer.raise_for_status().json()["access_token"])

    def headers(self, user: str = "alice") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(user)}"}

    def client(self, user: str = "alice") -> httpx.Client:
        """A client with a user's token."""
        return httpx.Client(base_url=self.url, headers=self.headers(user), timeout=60, trust_env=False)

    def account_now(self) -> dict[str, Any]:
        """What `bench.sampled` has counted so far."""
        assert self.account is not None
        self.account.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        until = time.monotonic() + 20
        while not self.account.exists():
            if time.monotonic() > until:
                raise TimeoutError("the platform did not write its account")
            time.sleep(0.02)
        told: dict[str, Any] = json.loads(self.account.read_text())
        return told


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone at the end."""
    path = Path(tempfile.mkdtemp(prefix="serai-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def platform(
    data: Path, *, sites: Sequence[dict[str, object]] = (), sampled: bool = False, around: Sequence[str] = (),
    constant: bool = False,
) -> Iterator[Up]:  # fmt: skip
    """`serai-platform up --mock` in a process of its own. `around` is a command that starts it (strace); `constant`:
    with auth answered by a constant.
    """
    data.mkdir(parents=True, exist_ok=True)
    account = data / "account.json" if sampled else None
    start = ["-m", "bench.constant"] if constant else ["-m", "services"]
    start = ["-m", "bench.sampled", str(account)] if sampled else start
    command = [*around, sys.executable, *start, "up", "--mock", "--log-level", "error"]
    command += ["--port", str(machine.free_port()), "--data", str(data / "platform")]
    if sites:
        (data / "sites.yaml").write_text(yaml.safe_dump(list(sites)))
        command += ["--sites", str(data / "sites.yaml")]
    began = time.perf_counter()
    with _process(command) as process:
        told = json.loads(_line(process))
        took_s = time.perf_counter() - began
        pid = machine.children(process.pid)[0] if around else process.pid
        yield Up(told["gateway"], told["issuer"], told["sites"], pid, took_s, account)


@contextlib.contextmanager
def bare() -> Iterator[tuple[str, int]]:
    """The bare FastAPI route: its URL and process id."""
    port = machine.free_port()
    with _process([sys.executable, "-m", "bench.bare", str(port)]) as process:
        _line(process)
        yield f"http://127.0.0.1:{port}/job", process.pid


def load(what: Load) -> dict[str, Any]:
    """Run one load in a process of its own; what it counted. Raises RuntimeError with its words when it failed."""
    command = [sys.executable, "-m", "bench.load", json.dumps(asdict(what))]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=what.seconds + 120
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the load failed: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextlib.contextmanager
def _process(command: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process in a group of its own; ended with its children, killed when that does not help."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sys.stderr, text=True,
        start_new_session=True, env={**os.environ, **UNLIMITED},
    )  # fmt: skip
    try:
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=END_S)


def _line(process: "subprocess.Popen[str]") -> str:
    """The first line of standard output."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], READY_S)
    line = process.stdout.readline() if ready else ""
    if not line:
        raise RuntimeError(f"{process.args!r} did not get ready within {READY_S:g} s")
    return str(line)
