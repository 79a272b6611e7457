"""The user's settings: address and VO, from options, environment and a small file. Read once per command.

Access tokens are no settings: `signin/bearers.py` says where they come from.

Order, first wins: command-line option, environment (`SERAI_URL`, `SERAI_VO`, `SERAI_KEYRING`), `config.yaml`, default.
Files lie in `SERAI_CONFIG_DIR`, else in the platform's folder for settings (`~/.config/serai` on Linux).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs
import yaml

from serai.errors import BadSettings

DEFAULT_URL: Final = "http://127.0.0.1:8080"
CONFIG_FILE: Final = "config.yaml"
_KNOWN: Final = ("url", "vo")


@dataclass(frozen=True, slots=True)
class Settings:
    """`keyring`: whether the desktop's keyring, where there is one, keeps what `serai login` brings."""

    url: str
    vo: str | None
    folder: Path
    keyring: bool = True


def read(environment: Mapping[str, str], *, url: str | None = None, vo: str | None = None) -> Settings:
    """The settings that hold for this command. Raises BadSettings."""
    folder = Path(environment.get("SERAI_CONFIG_DIR") or platformdirs.user_config_dir("serai"))
    config = _config(folder / CONFIG_FILE)
    address = (url or environment.get("SERAI_URL") or config.get("url") or DEFAULT_URL).rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise BadSettings(f"the address {address!r} must begin with http:// or https://")
    return Settings(
        address, vo or environment.get("SERAI_VO") or config.get("vo"), folder,
        environment.get("SERAI_KEYRING", "on").lower() not in ("off", "no", "0", "false"),
    )  # fmt: skip


def _config(path: Path) -> dict[str, str]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadSettings(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise BadSettings(f"{path}: must hold lines like `url: https://gateway.example.org`")
    unknown = sorted(set(content) - set(_KNOWN))
    if unknown:
        raise BadSettings(f"{path}: unknown setting '{unknown[0]}'; known are: {', '.join(_KNOWN)}")
    return content
