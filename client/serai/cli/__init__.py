"""The `serai` command. `main` is the whole command as a function; `entry` is what the shell calls."""

import os
import sys
import traceback
from collections.abc import Mapping, Sequence

import httpx2
import typer

from serai import outcomes
from serai.cli import screen, session
from serai.cli.app import app
from serai.errors import BadJobFile, ClientError, Problem
from serai.outcomes import Exit
from serai.wire import Pace

__all__ = ["entry", "main"]

_COMPLETION = ("--show-completion", "--install-completion")
"""They take the shell that they were called from, which is not always one that completes."""


def entry() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:], os.environ))


def main(
    args: Sequence[str], environment: Mapping[str, str], transport: httpx2.AsyncBaseTransport | None = None,
    pace: Pace | None = None,
) -> int:  # fmt: skip
    """Run one command and return its exit code (`outcomes.Exit`, or the job's own). Errors are told on stderr.

    `transport` and `pace` are for tests.
    """
    here = session.Session(environment, transport, pace)
    try:
        code = app(list(args), prog_name="serai", standalone_mode=False, obj=here)
        if code and args and args[0] in _COMPLETION:
            return _no_such_shell()
        return code if isinstance(code, int) else Exit.OK
    except typer.TyperException as error:
        return _wrong_usage(error)
    except ClientError as error:
        return _failed(error, here)
    except typer.Abort:
        return Exit.INTERRUPTED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except (KeyError, TypeError, ValueError) as error:
        traceback.print_exc()
        screen.complain(f"serai: an answer of the platform was not understood: {error!r}", "is this client too old?")
        return Exit.INTERNAL
    except BrokenPipeError:
        # Whoever read our output (`| head`) has enough: end quietly, and let no flush at exit complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK


def _wrong_usage(error: typer.TyperException) -> int:
    if not error.format_message().strip():  # no command at all: the help was shown
        return Exit.USAGE
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "serai"
    words = error.format_message().removeprefix("Invalid value: ").replace("Value error, ", "")
    advice = f"see `{command} --help`"
    if command == "serai run" and words.startswith("No such option"):
        advice = "put `--` before the command, so that its options are its own: `serai run -- CMD --option`"
    screen.complain(f"serai: {words}", advice)
    return Exit.USAGE


def _no_such_shell() -> int:
    """After the words of the library: which shell it found."""
    advice = "name one of bash, zsh, fish: `_SERAI_COMPLETE=source_bash serai` prints what it reads at its start"
    screen.complain("serai: the shell that this was called from completes nothing", advice)
    return Exit.USAGE


def _failed(error: ClientError, here: session.Session) -> int:
    words = str(error) if isinstance(error, BadJobFile) else f"serai: {error}"
    if isinstance(error, Problem) and error.errors and error.code == "invalid_request":
        words = "\n".join(["serai: the request is not valid", *(f"  {f.pointer}: {f}" for f in error.errors)])
    if isinstance(error, Problem) and error.members.get("trace_id"):
        words += f"\n  trace: {error.members['trace_id']}"
    screen.complain(words, outcomes.advice(error, here.url, token_from=here.token_from))
    return outcomes.of_error(error)
