"""What README.md and docs/first-hour.md tell a newcomer to type works, word for word.

`make test` itself is left out, and instead of making a virtual environment `make` uses the one that runs the tests
(the making is proven by CI, which starts with a fresh clone).
"""

from pathlib import Path

from tests.system.processes import CHECKOUT, Ended, first_line, make_variables, run, started
from tests.system.shown import blocks, script

README, FIRST_HOUR = CHECKOUT / "README.md", CHECKOUT / "docs" / "first-hour.md"
ITSELF = "make test"


async def typed(document: Path, folder: Path, url: str, *, headings: set[str] | None = None) -> Ended:
    """The commands of a document (or of some of its sections) in one shell, against a platform that runs."""
    shown = [block for block in blocks(document) if headings is None or block.heading in headings]
    assert shown, f"{document.name} shows no commands under {headings}"
    further = {"SERAI_URL": url, "SERAI_UP_DATA": str(folder / "data")}
    ended = await run("bash", "-c", script(shown), folder=folder, deadline_s=90, **further)
    assert ended.code == 0, f"{document.name}: {ended.out[-2000:]}\n{ended.err[-2000:]}"
    return ended


async def test_the_two_commands_are_make_run_and_make_test_and_make_run_succeeds(folder: Path) -> None:
    first = next(blocks(README))
    commands = [line.partition("#")[0].strip() for line in first.commands]
    assert commands == ["make run", ITSELF]
    keep = f"--port 18080 --keep {folder / 'kept'}"
    ended = await run(*commands[0].split(), folder=folder, deadline_s=60, ARGS=keep, **make_variables(folder))
    assert ended.code == 0, ended.told
    assert "All 5 examples ended as expected" in ended.out and f"saved in {folder}" in ended.out
    assert (folder / "kept" / "word-count" / "counts.json").is_file()
    assert "Hello from" not in ended.err and ended.err == ""


async def test_what_the_readme_and_the_first_hour_say_to_type_works(folder: Path) -> None:
    environment = {**make_variables(folder), "ARGS": "--port 18080", "SERAI_UP_DATA": str(folder / "data")}
    async with started("make", "up", folder=folder, **environment) as process:
        url = str((await first_line(process))["gateway"])
        readme = await typed(README, folder, url, headings={"What next"})
        assert "hello from far away" in readme.out and "prague" in readme.out
        hour = await typed(FIRST_HOUR, folder, url)
        for promised in (
            "hello from far away", "accuracy 0.95", "attempt.succeeded", "gpu_missing", "asked to cancel", "lyon",
        ):  # fmt: skip
            assert promised in hour.out + hour.err, f"first-hour.md: no {promised!r} in {hour.told}"


def test_the_documents_show_commands_that_are_run_here() -> None:
    headings = {block.heading for block in blocks(README)}
    assert headings == {"Serai", "What next"}, "a new section with commands: run them above"
    assert sum(len(block.commands) for block in blocks(FIRST_HOUR)) > 10
