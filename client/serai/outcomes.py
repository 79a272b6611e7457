"""Exit codes of the `serai` command: which numbers mean what. Pure.

One rule keeps them readable in scripts: a code of ours (`OURS`) never means that a job failed. A failed job ends the
command with its own exit code, and with 1 where it has none or where its own would be one of ours; the true number is
always in the last line on standard error and in `-o json`.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from serai.errors import (
    BadJobFile,
    BadSettings,
    ClientError,
    IssuerRefused,
    NotUnderstood,
    NoWayIn,
    Problem,
    Unreachable,
    WaitTimedOut,
)
from serai.values import Job


class Exit(IntEnum):
    """The command's own exit codes (64 to 78 as in BSD's sysexits.h)."""

    OK = 0
    JOB_FAILED = 1
    USAGE = 64
    BAD_JOB = 65
    NOT_FOUND = 66
    UNREACHABLE = 69
    INTERNAL = 70
    NOTHING_FITS = 72
    TRY_LATER = 75
    CONFLICT = 76
    NOT_ALLOWED = 77
    BAD_SETTINGS = 78
    CANCELLED = 79
    REJECTED = 80
    WAIT_TIMED_OUT = 124
    INTERRUPTED = 130


MEANINGS: Final[dict[Exit, str]] = {
    Exit.OK: "it worked; run/wait: every job succeeded",
    Exit.JOB_FAILED: "run/wait: the job failed without an exit code, or with one from this table",
    Exit.USAGE: "the command line is wrong",
    Exit.BAD_JOB: "the job (file) is wrong; the message names the line",
    Exit.NOT_FOUND: "no such job, site or output, or not yours to see",
    Exit.UNREACHABLE: "the platform cannot be reached",
    Exit.INTERNAL: "something failed in the platform or in this command",
    Exit.NOTHING_FITS: "--dry-run: no site can take the job as it is",
    Exit.TRY_LATER: "the platform is busy or partly away; the same command may work later",
    Exit.CONFLICT: "it clashes with what is there already",
    Exit.NOT_ALLOWED: "not signed in, or not allowed",
    Exit.BAD_SETTINGS: "the configuration or token file cannot be used",
    Exit.CANCELLED: "run/wait: the job was cancelled",
    Exit.REJECTED: "run/wait: the job was rejected",
    Exit.WAIT_TIMED_OUT: "--timeout passed; the jobs go on",
    Exit.INTERRUPTED: "Ctrl-C; the jobs go on",
}

OURS: Final = frozenset(MEANINGS) - {Exit.OK, Exit.JOB_FAILED}

_BY_STATUS: Final = {
    400: Exit.USAGE, 401: Exit.NOT_ALLOWED, 403: Exit.NOT_ALLOWED, 404: Exit.NOT_FOUND, 409: Exit.CONFLICT,
    410: Exit.NOT_FOUND, 412: Exit.CONFLICT, 413: Exit.BAD_JOB, 422: Exit.BAD_JOB, 429: Exit.TRY_LATER,
    502: Exit.UNREACHABLE, 503: Exit.TRY_LATER, 504: Exit.TRY_LATER,
}  # fmt: skip

_BY_ERROR: Final[tuple[tuple[type[ClientError], Exit], ...]] = (
    (Unreachable, Exit.UNREACHABLE),
    (BadJobFile, Exit.BAD_JOB),
    (WaitTimedOut, Exit.WAIT_TIMED_OUT),
    (BadSettings, Exit.BAD_SETTINGS),
    (NoWayIn, Exit.NOT_ALLOWED),
    (IssuerRefused, Exit.NOT_ALLOWED),
    (NotUnderstood, Exit.UNREACHABLE),
)


def of_job(job: Job) -> int:
    """The exit code that tells how an ended job ended."""
    match job.state:
        case "succeeded":
            return Exit.OK
        case "cancelled":
            return Exit.CANCELLED
        case "rejected":
            return Exit.REJECTED
    code = job.exit_code
    return code if code is not None and 1 <= code <= 255 and code not in OURS else Exit.JOB_FAILED


def of_jobs(jobs: Sequence[Job]) -> int:
    """The first outcome, in the order asked for, that is no success; 0 when all succeeded."""
    return next((code for code in map(of_job, jobs) if code), Exit.OK)


def of_error(error: ClientError) -> Exit:
    """The exit code for an error of the SDK."""
    if isinstance(error, Problem):
        return _BY_STATUS.get(error.status, Exit.INTERNAL)
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), Exit.INTERNAL)


def advice(error: ClientError, url: str, *, token_from: str = "") -> str | None:
    """What to type next after this error, or None when its own words say it. `token_from`: where the token came from,
    if not from `serai login`.
    """
    if error.next is not None:
        return error.next
    match error:
        case Unreachable() if "TLS" in error.why:
            return "check the address: `serai --url URL whoami`, or set SERAI_URL"
        case Unreachable():
            return f"is the platform up at {url}? start one with `make up`, or set SERAI_URL"
        case NotUnderstood():
            return "check the address: `serai --url URL whoami`, or set SERAI_URL"
        case Problem(status=401) if token_from.isupper():
            return f"put a new token into {token_from}, or `unset {token_from}` and `serai login`"
        case Problem(status=401) if token_from:
            return f"the token is that of {token_from}; sign in for this platform: `serai login`"
        case Problem(status=401):
            return "sign in: `serai login`"
        case Problem(status=403):
            return "see what you may do: `serai whoami`"
        case Problem(status=404):
            return "see what there is: `serai jobs`"
        case BadJobFile():
            return "see every field: `serai schema`"
        case Problem() if error.temporary:
            wait = f" in {error.retry_after_s:g} s" if error.retry_after_s else " later"
            return f"try again{wait}"
        case WaitTimedOut():
            return f"wait on: `serai wait {' '.join(error.unfinished)}`"
    return None


def table() -> str:
    """The exit codes as lines for help texts."""
    return "\n".join(f"{int(code):>4}  {meaning}" for code, meaning in MEANINGS.items())
