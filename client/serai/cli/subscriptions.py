"""`subscribe`, and `subscriptions` with its subcommands: events for another service, in an AMQP queue of its own."""

from typing import Annotated, Any

import typer

from serai.cli import session
from serai.cli.screen import Format
from serai.cli.session import Output, examples
from serai.errors import BadJobFile
from serai.grids import Grid

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The subscription's id.")]
VoOption = Annotated[str | None, typer.Option(help="The VO whose events you want; else SERAI_VO, or your only one.")]
_COLUMNS = ("ID", "VO", "STATE", "WAITING", "LOGIN UNTIL", "WHY ENDED")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        epilog=examples(
            "serai subscribe --state succeeded --state failed",
            "serai subscribe --label run=7 --from 2026-11-24T12:00:00Z",
            "SERAI_AMQP_URL=$(serai subscribe -o json | jq -r .connection.url)",
        )
    )(subscribe)
    group = typer.Typer(no_args_is_help=False)
    group.callback(invoke_without_command=True, epilog=examples("serai subscriptions"))(subscriptions)
    group.command("list", epilog=examples("serai subscriptions list -o json | jq -r '.[].id'"))(listed)
    group.command("show", epilog=examples("serai subscriptions show ID"))(show)
    group.command("renew", epilog=examples("serai subscriptions renew ID -o json | jq -r .connection.password"))(renew)
    group.command("delete", epilog=examples("serai subscriptions delete ID"))(delete)
    app.add_typer(group, name="subscriptions")


def subscribe(
    context: typer.Context,
    vo: VoOption = None,
    state: Annotated[list[str] | None, typer.Option(help="Only events to this state; repeat it for several.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only jobs with this label; all must hold.", metavar="KEY=VALUE")
    ] = None,
    own: Annotated[bool, typer.Option("--own", help="Only your own jobs, also where you may see all.")] = False,
    since: Annotated[
        str | None, typer.Option("--from", help="Go on behind this event's id, or begin at this time; else now.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Have events sent to an AMQP queue of your own. Its login is shown now and never again."""
    here = session.of(context)
    chosen, labels = session.vo(here, vo), _labels(label or [])
    made = here.ask(lambda serai: serai.subscribe(chosen, states=state or (), labels=labels, own=own, since=since))
    here.screen(output).data(made, _opened(made))


def subscriptions(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Your subscriptions. Their logins are never shown again."""
    if context.invoked_subcommand is None:
        listed(context, output)


def listed(context: typer.Context, output: Output = Format.TABLE) -> None:
    """Your subscriptions, newest first."""
    here = session.of(context)
    found = here.ask(lambda serai: serai.subscriptions())
    screen = here.screen(output)
    if not found and not screen.json:
        screen.say("you have no subscriptions; have events sent to you: `serai subscribe --state succeeded`")
        return
    screen.data(found, Grid.of(_COLUMNS, (_row(each) for each in found)))


def show(context: typer.Context, id: IdArgument, output: Output = Format.TABLE) -> None:
    """One of them."""
    here = session.of(context)
    found = here.ask(lambda serai: serai.subscription(id))
    here.screen(output).data(found, Grid.of(_COLUMNS, [_row(found)]))


def renew(context: typer.Context, id: IdArgument, output: Output = Format.TABLE) -> None:
    """A new password, good for another while. Connections that are open go on."""
    here = session.of(context)
    made = here.ask(lambda serai: serai.renew_subscription(id))
    here.screen(output).data(made, _opened(made))


def delete(context: typer.Context, id: IdArgument) -> None:
    """End it; its queue goes with what is in it."""
    here = session.of(context)
    here.ask(lambda serai: serai.delete_subscription(id))
    here.screen(Format.TABLE).say(f"{id} is deleted")


def _labels(given: list[str]) -> dict[str, str]:
    wrong = [text for text in given if "=" not in text]
    if wrong:
        raise BadJobFile([f"--label {wrong[0]}: write KEY=VALUE"])
    return dict(text.split("=", 1) for text in given)


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    waiting = "?" if each["waiting"] is None else str(each["waiting"])
    return (each["id"], each["vo"], each["state"], waiting, each["credentials_expire_at"], each["reason"] or "")


def _opened(made: dict[str, Any]) -> Grid:
    login = made["connection"]
    rows = [
        ("id", made["id"]),
        ("url", login["url"]),
        ("queue", login["queue"]),
        ("until", made["credentials_expire_at"]),
    ]
    return Grid.of(("WHAT", "VALUE"), rows)
