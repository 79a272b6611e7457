"""The operators' commands about trust: issuers, suspensions, policies, the audit log. Words and exit codes; the work is
elsewhere.

Imports what it needs when it runs, so that other commands start quickly. Added to the command by
`services/__main__.py`.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from shared.errors import Misconfigured, SeraiError

issuers = typer.Typer(no_args_is_help=True, help="Trusted issuers: which there are, what one offers, what is missing.")

suspensions = typer.Typer(no_args_is_help=True, help="Suspensions: who and what is suspended, and their ends.")
policy = typer.Typer(no_args_is_help=True, help="The policy of a VO: show, try and set it.")
audit = typer.Typer(no_args_is_help=True, help="The audit log: export it, and prove that nobody has changed it.")

Auth = Annotated[str, typer.Option(envvar="SERAI_AUTH_URL", help="Address of auth; left out: that of --data.")]
Data = Annotated[Path, typer.Option(help="Folder of a running embedded platform.")]
As = Annotated[str, typer.Option("--as", help="Demo user to act as where SERAI_TOKEN is not set.")]
File = Annotated[Path | None, typer.Option(help="YAML file of issuers instead of those in the environment.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(issuers, name="issuers")
    app.add_typer(suspensions, name="suspensions")
    app.add_typer(policy, name="policy")
    app.add_typer(audit, name="audit")
    app.command("suspend")(suspend)


@issuers.command("list")
def list_issuers(file: File = None) -> None:
    """Print the trusted issuers, one a line."""
    from services.auth import checking

    for line in checking.summary(_trusted(file)) or ["no issuer is trusted: see docs/issuers.md"]:
        print(line)


@issuers.command("check")
def check_issuer(
    url: Annotated[str, typer.Argument(help="The issuer, exactly as its tokens' `iss`.")], file: File = None
) -> None:
    """Say what an issuer offers and which setting is missing; exit 0 only if its tokens can be verified."""
    from services.auth import checking

    report = _run(checking.check(url, _trusted(file)))
    print("\n".join(report.said))
    for problem in report.problems:
        print(f"missing: {problem}", file=sys.stderr)
    raise typer.Exit(1 if report.problems else 0)


# -- suspensions --------------------------------------------------------------------------------------------------


def suspend(
    kind: Annotated[str, typer.Argument(help="subject, client, token, vo or membership.")],
    reason: Annotated[str, typer.Option(help="Why; the person who is hit reads it.")],
    value: Annotated[str, typer.Option(help="The subject, client id or token id (`jti`).")] = "",
    issuer: Annotated[str, typer.Option(help="The issuer that it is of.")] = "",
    vo: Annotated[str, typer.Option(help="The VO.")] = "",
    for_s: Annotated[float | None, typer.Option(help="Seconds that it holds; left out: until it is lifted.")] = None,
    stop_running: Annotated[bool, typer.Option(help="Stop running jobs whatever policies say.")] = False,
    auth: Auth = "", data: Data = Path(".serai"), person: As = "ada",
) -> None:  # fmt: skip
    """Suspend a subject, client, token, VO or membership; it holds everywhere within five seconds."""
    body = {"kind": kind, "reason": reason, "value": value, "issuer": issuer, "vo": vo or None, "for_s": for_s,
            "stop_running": stop_running}  # fmt: skip
    made = _as(auth, data, person, "POST", "/v1/suspensions", json=body).json()
    print(f"suspended; lift it with: serai-platform suspensions lift {made['id']}")


@suspensions.command("list")
def list_suspensions(auth: Auth = "", data: Data = Path(".serai"), person: As = "ada") -> None:
    """Print all suspensions, newest first."""
    for each in _as(auth, data, person, "GET", "/v1/suspensions").json()["suspensions"]:
        whom = " ".join(filter(None, (each["value"], each["issuer"], each["vo"])))
        state = f"lifted by {each['lifted_by']}" if each["lifted_at"] else f"holds until {each['until'] or 'lifted'}"
        print(f"{each['id']}  {each['kind']} {whom}: {each['reason']}; by {each['made_by']}; {state}")


@suspensions.command("lift")
def lift(
    id: Annotated[str, typer.Argument(help="Id of the suspension.")],
    auth: Auth = "", data: Data = Path(".serai"), person: As = "ada",
) -> None:  # fmt: skip
    """End a suspension."""
    _as(auth, data, person, "DELETE", f"/v1/suspensions/{id}")
    print("lifted")


@suspensions.command("replay")
def replay(
    file: Annotated[Path, typer.Argument(help="What `audit export` printed, from its beginning.")],
    auth: Auth = "", data: Data = Path(".serai"), person: As = "ada",
) -> None:  # fmt: skip
    """Make those again that a restored database has forgotten (docs/postgresql.md). Asked twice, nothing is doubled."""
    from services.auth import replaying
    from shared.runtime.clock import system_clock

    lines = _export(file)
    _proven(lines[0]["anchor"], lines[1:])
    held = _as(auth, data, person, "GET", "/v1/suspensions").json()["suspensions"]
    for asked in replaying.missing(replaying.in_force(lines[1:], system_clock()), held):
        made = _as(auth, data, person, "POST", "/v1/suspensions", json=asked).json()
        print(f"{made['id']}  {made['kind']} {made['value'] or made['vo']}: {made['reason']}")


# -- policies -----------------------------------------------------------------------------------------------------


@policy.command("show")
def show_policy(vo: str, auth: Auth = "", data: Data = Path(".serai"), person: As = "ada") -> None:
    """Print a VO's policy, and what is left of it within the platform's."""
    print(json.dumps(_as(auth, data, person, "GET", f"/v1/vos/{vo}/policy").json(), indent=2))


@policy.command("set")
def set_policy(
    vo: str, file: Annotated[Path, typer.Argument(help="JSON or YAML file; see docs/policies.md.")],
    dry_run: Annotated[bool, typer.Option(help="Only say what would differ and what would have no effect.")] = False,
    auth: Auth = "", data: Data = Path(".serai"), person: As = "ada",
) -> None:  # fmt: skip
    """Replace a VO's policy; refused when somebody else changed it meanwhile."""
    import yaml

    path = f"/v1/vos/{vo}/policy"
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        _fail(Misconfigured(f"{file} cannot be read: {error}"))
    seen = _as(auth, data, person, "GET", path).headers["etag"]
    told = _as(
        auth, data, person, "PUT", path, json=document, headers={"If-Match": seen}, params={"dry_run": dry_run}
    ).json()  # fmt: skip
    print(json.dumps(told, indent=2))


# -- audit --------------------------------------------------------------------------------------------------------


@audit.command("export")
def export_audit(
    after: Annotated[int, typer.Option(help="Only records behind this position.")] = 0,
    auth: Auth = "", data: Data = Path(".serai"), person: As = "ada",
) -> None:  # fmt: skip
    """Print the log as lines of JSON: where the chain begins, then every record."""
    client = _connected(auth, data, person)
    anchor, _, records = _done(lambda: client.records(after))
    if after == 0:
        print(json.dumps({"anchor": anchor}))
    for record in records:
        print(json.dumps(record, sort_keys=True))


@audit.command("verify")
def verify_audit(
    file: Annotated[Path | None, typer.Argument(help="An export; left out: the log of the running auth.")] = None,
    auth: Auth = "", data: Data = Path(".serai"), person: As = "ada",
) -> None:  # fmt: skip
    """Prove the chain, record by record, here and not at auth; exit 0 only if it holds."""
    if file is not None:
        lines = _export(file)
        anchor, head, records = lines[0]["anchor"], None, iter(lines[1:])
    else:
        client = _connected(auth, data, person)
        anchor, head, records = _done(lambda: client.records())
    found = _proven(anchor, records, head)
    print(f"the audit log holds: {found.position - anchor['position']} records, head {found.position} {found.hash}")


def _export(file: Path) -> list[Any]:
    """The lines of an export: where its chain begins, then its records."""
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        _fail(Misconfigured(f"{file} cannot be read: {error}"))
    if not lines or "anchor" not in lines[0]:
        _fail(Misconfigured(f"{file} is not what `audit export` prints from the beginning of the log"))
    return lines


def _proven(anchor: Any, records: Iterable[Any], head: Any = None) -> Any:
    """The end of a chain that holds; else the end of the command."""
    from services.auth.audit import Break, End, verify

    found = verify(records, End(**anchor))
    if isinstance(found, Break) or (head is not None and found != End(**head)):
        what = found.what if isinstance(found, Break) else f"it ends at {found.position}, not at {head}"
        print(f"the audit log does not hold: {what}", file=sys.stderr)
        raise typer.Exit(1)
    return found


# -- how ----------------------------------------------------------------------------------------------------------


def _connected(auth: str, data: Path, person: str) -> Any:
    from services.auth.operator_client import connect

    return _done(lambda: connect(auth, data, person))


def _as(auth: str, data: Path, person: str, method: str, path: str, **more: Any) -> Any:
    client = _connected(auth, data, person)
    return _done(lambda: client.ask(method, path, **more))


def _done(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except SeraiError as error:
        _fail(error)


def _trusted(file: Path | None) -> Any:
    from pydantic import ValidationError

    from services.auth.settings import IssuerSettings, read_issuers, trusted_issuers

    try:
        return read_issuers(file) if file is not None else trusted_issuers(IssuerSettings())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        _fail(Misconfigured(f"SERAI_AUTH_ISSUERS, {where}: {first['msg']}"))
    except SeraiError as error:
        _fail(error)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except SeraiError as error:
        _fail(error)


def _fail(error: SeraiError) -> NoReturn:
    print(f"serai-platform: {error.what}", file=sys.stderr)
    raise typer.Exit(78 if isinstance(error, Misconfigured) else 1) from None
