"""A file that only its owner can read, replaced whole and on the disk when this returns."""

import os
from pathlib import Path


def write_private(file: Path, content: bytes) -> None:
    """Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    new.rename(file)
