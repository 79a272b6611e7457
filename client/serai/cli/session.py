"""What all commands share: settings, the connection, job ids as people give them, durations."""

import asyncio
import difflib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Final, TypeVar

import httpx2
import typer

from serai import connecting, settings
from serai.cli.screen import Format, Screen
from serai.client import Serai
from serai.errors import BadSettings, Problem
from serai.settings import Settings
from serai.signin.issuers import Issuer
from serai.signin.logins import Logins
from serai.wire import Pace

T = TypeVar("T")

RECENT: Final = 1000
"""Jobs, newest first, among which a shortened id is looked up."""

FULL_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
PART_OF_ID: Final = re.compile(r"[0-9a-fA-F-]{4,36}")

Output = Annotated[Format, typer.Option("--output", "-o", help="How to write the answer.")]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="A job id, its unique beginning or end, or `last`.")]
JobsArgument = Annotated[list[str], typer.Argument(metavar="ID...", help="Job ids, their ends, or `last`.")]


class Session:
    """One run of the command. Options of the root command fill in `asked_url`."""

    def __init__(
        self, environment: Mapping[str, str], transport: httpx2.AsyncBaseTransport | None, pace: Pace | None = None
    ) -> None:
        self.pace = pace or Pace()
        self.token_from = ""
        self.environment = environment
        self.transport = transport
        self.asked_url: str | None = None

    @property
    def url(self) -> str:
        """The address in use, for messages; also when the settings cannot be read."""
        try:
            return self.settings().url
        except BadSettings:
            return self.asked_url or self.environment.get("SERAI_URL") or settings.DEFAULT_URL

    def settings(self) -> Settings:
        """The settings that hold. Raises BadSettings."""
        return settings.read(self.environment, url=self.asked_url)

    def screen(self, form: Format) -> Screen:
        return Screen(form, self.environment)

    def logins(self) -> Logins:
        """The sign-ins that are kept. Raises BadSettings."""
        chosen = self.settings()
        return Logins(chosen.folder, keyring=chosen.keyring)

    async def issuers(self) -> list[Issuer]:
        """The issuers that the gateway names."""
        return await connecting.issuers_at(self.settings().url, self.pace, self.transport)

    def ask(self, question: Callable[[Serai], Awaitable[T]]) -> T:
        """The answer of one conversation with the gateway; Ctrl-C cancels it and closes the connection."""
        chosen, screen = self.settings(), self.screen(Format.TABLE)
        bearer, self.token_from = connecting.bearer_of(chosen, self.environment, self.pace, self.transport)

        async def conversation() -> T:
            async with Serai(
                chosen.url, bearer, transport=self.transport, pace=self.pace,
                on_break=lambda words: screen.say(words, "yellow"),
            ) as serai:  # fmt: skip
                return await question(serai)

        return asyncio.run(conversation())


def of(context: typer.Context) -> Session:
    """The session of this run."""
    here: Session = context.obj
    return here


def vo(here: Session, asked: str | None) -> str:
    """The VO that was asked for, that of the settings, or the only one in which the caller may work."""
    return asked or here.settings().vo or here.ask(_only_vo)


async def _only_vo(serai: Serai) -> str:
    """The caller's VO where there is no choice."""
    me = await serai.whoami()
    vos = [each["vo"] for each in me["memberships"] if "job.submit" in each.get("verbs", ("job.submit",))]
    if len(vos) != 1:
        which = f"one of: {', '.join(vos)}" if vos else "none of your roles may submit; see `serai whoami`"
        raise typer.BadParameter(f"say for which VO: --vo NAME or SERAI_VO ({which})")
    return str(vos[0])


async def job_id(serai: Serai, given: str) -> str:
    """The full id that `given` stands for. Raises Problem `not_found`, or BadParameter when it is not unique."""
    if FULL_ID.fullmatch(given):
        return given.lower()
    if given != "last" and not PART_OF_ID.fullmatch(given):
        raise typer.BadParameter(f"'{given}' is no job id; `serai jobs` shows them, `last` is your newest job")
    known: list[str] = []
    async for job in serai.jobs(page=100):
        if given == "last":
            return job.id
        known.append(job.id)
        if len(known) >= RECENT:
            break
    return _only(given, [each for each in known if each.startswith(given.lower()) or each.endswith(given.lower())])


def _only(given: str, found: Sequence[str]) -> str:
    if not found:
        if given == "last":
            nothing = Problem(404, code="not_found", detail="you have no job yet")
            raise nothing.then("hand one in: `serai run -- echo hello`")
        what = f"none of your newest {RECENT:,} jobs begins or ends with '{given}'"
        raise Problem(404, code="not_found", detail=what)
    if len(found) > 1:
        raise typer.BadParameter(f"'{given}' fits {len(found)} jobs: {', '.join(found[:5])}; give more of the id")
    return found[0]


_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str | None) -> float | None:
    """`90`, `90s`, `10m`, `2h`, `1d` in seconds. Raises BadParameter."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
    if found is None:
        raise typer.BadParameter(f"'{text}' is no duration; write 90s, 10m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]


def pairs(given: Sequence[str] | None, what: str) -> dict[str, str]:
    """`NAME=VALUE` words as a mapping. Raises BadParameter."""
    found = {}
    for word in given or ():
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{what} '{word}' must be NAME=VALUE")
        found[name] = value
    return found


def states(given: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The states as they were given. Raises BadParameter with the nearest one that there is."""
    for state in given or ():
        if state not in known:
            close = difflib.get_close_matches(state, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(known)}"
            raise typer.BadParameter(f"there is no state '{state}'; {hint}")
    return list(given or ())


def examples(*lines: str) -> str:
    """The examples under a help text, one a line."""
    return "Examples:\n\n" + "\n\n".join(f"$ {line}" for line in lines)
