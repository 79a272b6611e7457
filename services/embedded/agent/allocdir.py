"""An allocation's directory: made as Nomad lays it out, filled with templates and artifacts, removed in the end.

Blocking; `tasks.py` calls it in a thread.
"""

import os
import shutil
import tarfile
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from .jobspec import Row
from .taskenv import Places
from .templates import Read, Unsupported, render

MAX_ARTIFACT_BYTES = 2 * 1024**3
ARTIFACT_TIMEOUT_S = 60


class SetupFailure(Exception):
    """The task cannot be prepared; `kind` is the task event's type, `detail` the name of its detail."""

    def __init__(self, kind: str, detail: str, text: str) -> None:
        super().__init__(text)
        self.kind, self.detail, self.text = kind, detail, text


def make(places: Places) -> None:
    """The shared directories and those of one task."""
    for name in ("data", "logs", "tmp"):
        (places.shared / name).mkdir(parents=True, exist_ok=True)
    for name in ("local", "secrets", "private", "tmp"):
        (places.task_dir / name).mkdir(parents=True, exist_ok=True)
    places.task_dir.joinpath("secrets").chmod(0o700)


def remove(alloc_dir: Path) -> None:
    """Everything of an allocation."""
    shutil.rmtree(alloc_dir, ignore_errors=True)


def inside(places: Places, name: str) -> Path:
    """A destination under the task's directory or the shared one. Raises SetupFailure when it leads out."""
    wanted = PurePosixPath(name)
    path = Path(wanted) if wanted.is_absolute() else places.task_dir / wanted
    resolved = path.resolve()
    if not resolved.is_relative_to(places.alloc_dir.resolve()):
        raise SetupFailure("Setup Failure", "setup_error", f"destination {name!r} escapes alloc directory")
    return resolved


def write_template(places: Places, template: Row, dest: str, read: Read) -> dict[str, str]:
    """Write a template's file; the variables in it when it is for the environment. Raises SetupFailure, Missing."""
    try:
        content = render(template, read)
    except Unsupported as error:
        raise SetupFailure("Template", "display_message", f"Template failed: {dest}: {error}") from error
    write(inside(places, dest), content, int(template["Perms"] or "0644", 8))
    return _variables(content.decode(errors="replace")) if template["Envvars"] else {}


def write(path: Path, content: bytes, mode: int) -> None:
    """Put a file in its place in one step, also over one that nobody may write to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
    fresh.chmod(mode)
    fresh.replace(path)


def _variables(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            found[name.strip()] = value.strip().strip("\"'")
    return found


def fetch(places: Places, artifact: Row, source: str, dest: str) -> None:
    """Download an artifact over HTTP(S) and unpack it when it is an archive. Raises SetupFailure."""
    try:
        target = inside(places, dest or "local")
        if urlsplit(source).scheme not in ("http", "https"):
            raise ValueError("only http and https sources are supported")
        name = PurePosixPath(urlsplit(source).path).name or "artifact"
        if artifact.get("GetterMode") == "file":
            target.parent.mkdir(parents=True, exist_ok=True)
            _download(source, target)
            return
        target.mkdir(parents=True, exist_ok=True)
        _download(source, target / name)
        _unpack(target / name, target)
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        text = f'failed to download artifact "{source}": {error}'
        raise SetupFailure("Failed Artifact Download", "download_error", text) from error


def _download(source: str, path: Path) -> None:
    with urllib.request.urlopen(source, timeout=ARTIFACT_TIMEOUT_S) as answer, path.open("wb") as file:
        left = MAX_ARTIFACT_BYTES
        while chunk := answer.read(1 << 20):
            left -= len(chunk)
            if left < 0:
                raise ValueError("artifact is too large")
            file.write(chunk)


def _unpack(path: Path, target: Path) -> None:
    """Archives are unpacked in place, never outside of it; other files stay as they are."""
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            archive.extractall(target, filter="data")
        path.unlink()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if not (target / member).resolve().is_relative_to(target):
                    raise ValueError(f"archive member {member!r} escapes its directory")
            archive.extractall(target)
        path.unlink()
