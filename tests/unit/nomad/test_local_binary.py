"""`NOMAD=auto|PATH`: what is taken for a nomad, and what is said of all else."""

from pathlib import Path

import pytest

from shared.adapters.nomad import local_binary
from shared.errors import Misconfigured

pytestmark = pytest.mark.fast


def saying(folder: Path, words: str) -> Path:
    """A program that answers like this to everything."""
    file = folder / "nomad"
    file.write_text(f"#!/bin/sh\ncat <<'EOF'\n{words}\nEOF\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("words", ["Nomad v2.0.6-dev", "Nomad v1.10.0\nBuildDate 2025-04-09", "Nomad v1.11.3+ent"])
async def test_a_nomad_of_ten_or_newer_will_do(tmp_path: Path, words: str) -> None:
    assert await local_binary.check(saying(tmp_path, words)) >= (1, 10)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Nomad v1.9.7", "is Nomad 1.9.7, older than 1.10"),
        ("Nomad v0.12.10+dfsg1", "is Nomad 0.12.10, older than 1.10"),
        ("Consul v1.8.7", "is no nomad: `nomad version` said 'Consul v1.8.7'"),
        ("", "is no nomad: `nomad version` said ''"),
    ],
)
async def test_what_will_not_do_is_said_with_what_to_use_instead(tmp_path: Path, words: str, said: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        await local_binary.check(saying(tmp_path, words))
    assert said in refused.value.what
    assert "NOMAD=embedded" in refused.value.what


async def test_what_cannot_be_executed_is_said_so(tmp_path: Path) -> None:
    file = tmp_path / "nomad"
    file.write_bytes(b"\x00\x01 neither a script nor a program")
    file.chmod(0o755)
    with pytest.raises(Misconfigured, match="cannot be run"):
        await local_binary.check(file)


def test_only_a_file_that_may_be_executed_is_found(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("text")
    assert local_binary.installed(str(tmp_path / "nowhere")) is None
    assert local_binary.installed(str(plain)) is None
    assert local_binary.installed(str(tmp_path)) is None
    found = saying(tmp_path, "Nomad v2.0.6")
    assert local_binary.installed(str(found)) == found
