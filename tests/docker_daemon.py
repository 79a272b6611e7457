"""A Docker daemon of our own for a while: no bridge, no packet rules, a folder and a socket of its own.

Nothing of it touches the machine's network, so that others' servers on loopback are left alone; its containers have a
network of their own with nothing in it. Only root can start one.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.real_nomad import until

IMAGE = "local/busybox:1"
READY_S = 30.0
END_S = 20.0
_BUSYBOX = Path("/bin/busybox")
_APPLETS = ("sh", "echo", "cat", "sleep", "true", "false", "ls", "readlink", "tail", "id", "mkdir")


class DockerDaemon:
    """Start with `start`; `endpoint` is where Nomad's driver finds it."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"unix://{folder}/docker.sock"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        transport = httpx2.HTTPTransport(uds=str(folder / "docker.sock"))
        self._api = httpx2.Client(base_url="http://docker", transport=transport, timeout=30)

    def start(self) -> None:
        """Return when it answers and has the image. Skips with its last words where a daemon cannot be started."""
        folder = self._folder
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs",
                 f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid",
                 f"--host={self.endpoint}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until(self._answers, READY_S)
        with (folder / "image.tar").open("rb") as image:
            made = self._api.post("/images/create", params={"fromSrc": "-", "repo": IMAGE}, content=image)
        assert made.is_success, made.text

    def running(self) -> int:
        """How many containers run."""
        return len(self._api.get("/containers/json").json())

    def shown(self) -> str:
        """All that it shows of containers to whoever may ask it, of those that have ended too."""
        listed = self._api.get("/containers/json", params={"all": True})
        told = [self._api.get(f"/containers/{each['Id']}/json").text for each in listed.json()]
        return "\n".join([listed.text, *told])

    def stop(self) -> None:
        """End it, and with it every container."""
        self._api.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(END_S)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.skip(f"no Docker daemon can be started here: {(self._folder / 'log').read_text()[-300:]}")
        try:
            return self._api.get("/_ping").is_success
        except httpx2.HTTPError:
            return False


@contextmanager
def docker_daemon() -> Iterator[DockerDaemon]:
    """A daemon with the image `local/busybox:1`. Skips by name where there can be none."""
    if shutil.which("dockerd") is None:
        pytest.skip("no dockerd on PATH ('apt-get install docker.io'): image jobs are not run")
    if os.geteuid() != 0:
        pytest.skip("a Docker daemon needs root: image jobs are not run")
    if not _BUSYBOX.exists() or b"statically linked" not in _about(_BUSYBOX):
        pytest.skip("no static busybox ('apt-get install busybox-static'): image jobs are not run")
    with tempfile.TemporaryDirectory(prefix="serai-docker-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _pack(folder / "image.tar")
        daemon = DockerDaemon(folder)
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.stop()


def _about(binary: Path) -> bytes:
    """`statically linked` for a binary that asks for no loader."""
    head = binary.read_bytes()
    return b"" if b"/lib64/ld-linux" in head or b"/lib/ld-linux" in head else b"statically linked"


def _pack(file: Path) -> None:
    """An image of one busybox."""
    with tarfile.open(file, "w") as tar:
        tar.add(_BUSYBOX.resolve(), "bin/busybox")
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("tmp", "etc", "proc", "sys", "dev"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
