"""Rules of the house, as checks on the tree itself: reviewers forget, these do not."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from services import documents
from services.auth import wiring as auth_wiring
from services.gateway import wiring as gateway_wiring
from services.monitor import wiring as monitor_wiring
from services.scheduler import wiring as scheduler_wiring
from shared.contracts import commands, events, routes
from shared.contracts.reasons import REASON_SENTENCES, ReasonCode

pytestmark = pytest.mark.fast
ROOT = Path(__file__).parents[2]
SERVICES = ("gateway", "scheduler", "monitor", "auth")
ROOMS = ("settings.py", "wiring.py", "handlers.py", "store.py", "migrations/versions")
WIRINGS = (auth_wiring, gateway_wiring, monitor_wiring, scheduler_wiring)


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split() if (ROOT / name).is_file()]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("room", ROOMS)
def test_every_service_has_the_same_rooms(service: str, room: str) -> None:
    assert (ROOT / "services" / service / room).exists()


def test_every_command_has_its_receiver_and_every_event_a_reader() -> None:
    assert set(routes.RECEIVERS) == set(commands.COMMANDS)
    assert set(routes.READERS) == set(events.EVENTS)


def test_the_scheduler_handles_all_that_its_queues_bring() -> None:
    from services.scheduler import handlers

    brought = {kind for kind, queue in routes.RECEIVERS.items() if queue is routes.SCHEDULER_COMMANDS}
    brought |= {kind for kind, readers in routes.READERS.items() if routes.SCHEDULER_REPORTS in readers}
    assert brought <= set(handlers.HANDLERS)


def test_every_reason_has_its_sentence() -> None:
    assert set(REASON_SENTENCES) == set(ReasonCode)


def test_every_setting_says_what_it_is() -> None:
    missing = [
        f"{service}.{name}"
        for service, model in documents.SETTINGS.items()
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert missing == []


@pytest.mark.parametrize("name", sorted(documents.DOCUMENTS))
def test_generated_documents_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == documents.DOCUMENTS[name](), "run `make docs`"


def test_every_listening_service_stands_behind_the_same_edge() -> None:
    """Whoever serves HTTP does it through `shared.runtime.serving`; the embedded agent is a site's, not a service."""
    serving = [
        str(file.relative_to(ROOT))
        for file in tracked("services/*.py", "shared/*.py")
        if re.search(r"uvicorn\.(Config|run)\(", file.read_text())
    ]
    assert sorted(serving) == ["services/embedded/agent/server.py", "shared/runtime/serving.py"]


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in tracked("services/*.py", "shared/*.py", "client/serai/*.py")
        if file.name != "__init__.py"
        and "/versions/" not in str(file)
        and not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert silent == []


def test_no_test_patches_or_sleeps() -> None:
    forbidden = re.compile(r"mock\.patch|monkeypatch\.setattr|MagicMock|time\.sleep\(|asyncio\.sleep\((?!0\))")
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in tracked("tests/*.py")
        if file not in (Path(__file__), ROOT / "tests" / "pacing.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def test_no_file_names_a_registry_or_a_folder_of_some_machine() -> None:
    words = ["pypi" + ".org", "pythonhosted" + ".org", "/ro" + "ot/", "/wo" + "rk/", "/ho" + "me/"]
    found = [
        f"{file.relative_to(ROOT)}: {word}"
        for file in tracked()
        if file.suffix not in {".ndjson"}
        for word in words
        if word in file.read_text(errors="ignore")
    ]
    assert found == []


def test_the_lock_files_carry_hashes_and_no_addresses() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert "--hash=sha256:" in text
        assert "index-url" not in text and "://" not in text


def test_markdown_links_lead_somewhere() -> None:
    broken = [
        f"{file.relative_to(ROOT)} -> {target}"
        for file in tracked("*.md")
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", file.read_text())
        if not target.startswith(("http://", "https://", "mailto:")) and not (file.parent / target).exists()
    ]
    assert broken == []
