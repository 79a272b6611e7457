"""Settings."""

from pathlib import Path

import pytest

from serai import settings
from serai.errors import BadSettings

pytestmark = pytest.mark.fast


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


def test_the_keyring_is_used_unless_it_is_switched_off(tmp_path: Path) -> None:
    assert settings.read(here(tmp_path)).keyring
    assert not settings.read(here(tmp_path, SERAI_KEYRING="off")).keyring


def test_an_address_without_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="http://"):
        settings.read(here(tmp_path, SERAI_URL="localhost:8080"))
