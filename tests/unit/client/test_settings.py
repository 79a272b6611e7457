"""Settings and the token file."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serai import settings
from serai.errors import BadSettings
from serai.settings import TokenFile

pytestmark = pytest.mark.fast
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
URL = "https://gateway.example.org"


def here(folder: Path, **more: str) -> dict[str, str]:
    return {"SERAI_CONFIG_DIR": str(folder), **more}


def test_option_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    assert settings.read(here(tmp_path)).url == settings.DEFAULT_URL
    (tmp_path / "config.yaml").write_text("url: http://file\nvo: vo.file\n")
    assert settings.read(here(tmp_path)).url == "http://file"
    assert settings.read(here(tmp_path, SERAI_URL="http://env/")).url == "http://env"
    assert settings.read(here(tmp_path, SERAI_URL="http://env"), url="http://option").url == "http://option"
    assert settings.read(here(tmp_path)).vo == "vo.file"


def test_a_slip_in_the_config_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("ulr: http://x\n")
    with pytest.raises(BadSettings, match="unknown setting 'ulr'"):
        settings.read(here(tmp_path))


def test_tokens_are_kept_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tokens.json"
    TokenFile(path).keep(URL, "secret", user="alice", expires_in_s=60, now=NOON)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert TokenFile(path).token(URL) == "secret"
    assert TokenFile(path).token("https://elsewhere") is None
    assert [each.name for each in path.parent.iterdir()] == ["tokens.json"]


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    TokenFile(path).keep(settings.DEFAULT_URL, "secret", user="alice", expires_in_s=None, now=NOON)
    path.chmod(0o644)
    with pytest.raises(BadSettings, match="chmod 600"):
        settings.read(here(tmp_path))


def test_the_environments_token_wins(tmp_path: Path) -> None:
    TokenFile(tmp_path / "tokens.json").keep(settings.DEFAULT_URL, "kept", user="a", expires_in_s=None, now=NOON)
    assert settings.read(here(tmp_path)).token == "kept"
    assert settings.read(here(tmp_path, SERAI_TOKEN="given")).token == "given"


def test_an_address_without_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="http://"):
        settings.read(here(tmp_path, SERAI_URL="localhost:8080"))
