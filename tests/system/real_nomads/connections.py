"""How many connections a process holds to a port of this machine, by the kernel's word."""

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_ESTABLISHED: Final = "01"


def held(processes: Mapping[str, int], port: int) -> Counter[str]:
    """Open connections to a port, by name of the process; `processes` are ids by name."""
    inodes = _inodes_to(port)
    return Counter({name: len(_sockets_of(id) & inodes) for name, id in processes.items()})


def _inodes_to(port: int) -> set[str]:
    """Columns of /proc/net/tcp (proc(5)): 1 local, 2 remote as address:port in hexadecimal, 3 state, 9 inode."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == _ESTABLISHED and int(row[2].rpartition(":")[2], 16) == port}


def _sockets_of(id: int) -> set[str]:
    found: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        for entry in Path(f"/proc/{id}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                place = str(entry.readlink())
                if place.startswith("socket:["):
                    found.add(place[8:-1])
    return found
