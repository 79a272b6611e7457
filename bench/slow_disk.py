"""A slow disk: strace holds every fsync and fdatasync of a process up. Only these calls are traced (seccomp)."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CALLS: Final = "fsync,fdatasync"
_TRY: Final = """
import os, sys, time
file = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
start = time.perf_counter()
for _ in range(20):
    os.write(file, bytes(4096))
    os.fdatasync(file)
print((time.perf_counter() - start) / 20 * 1e3)
"""


@dataclass(frozen=True, slots=True)
class Disk:
    """`delay_ms` is added to each sync; 0 = traced, but not slower: what strace itself costs."""

    delay_ms: float
    counts: Path

    @property
    def command(self) -> list[str]:
        """Put before the command of the process."""
        inject = ["-e", f"inject={_CALLS}:delay_exit={int(self.delay_ms * 1000)}"] if self.delay_ms else []
        traced = ["strace", "-f", "--seccomp-bpf", "-qq", "-c", "-o", str(self.counts), "-e", f"trace={_CALLS}"]
        return [*traced, *inject]

    def syncs(self) -> int:
        """How many calls were traced; known when the process has ended."""
        rows = re.findall(
            r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?f(?:data)?sync$", self.counts.read_text(), re.M
        )
        return sum(int(row) for row in rows)

    def sync_ms(self) -> float:
        """What one sync takes a process that runs on this disk: proof that the delay is there."""
        command = [*self.command, sys.executable, "-c", _TRY, str(self.counts.with_suffix(".try"))]
        return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def missing() -> str:
    """Why a disk cannot be made slow here; empty when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", f"trace={_CALLS}", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 and not tried.stderr else f"strace does not work here: {tried.stderr[:200]}"
