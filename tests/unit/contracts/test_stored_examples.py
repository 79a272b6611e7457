"""Every message of every released version still decodes, and today's writer makes what readers were promised."""

from pathlib import Path

import orjson
import pytest

from shared.contracts import codec, commands, events, routes
from shared.contracts.commands import Command
from shared.contracts.envelope import Message
from tests.builders import NOON
from tests.unit.contracts import catalogue

pytestmark = pytest.mark.fast
EXAMPLES = Path(__file__).parents[2] / "contract_examples"
KINDS = (*commands.COMMANDS, *events.EVENTS)


def message_of(content: Command | events.Event) -> Message:
    if isinstance(content, Command):
        return codec.command_message(
            type(content), codec.command_body(content), id="6f2a", source="/gateway", time=NOON,
            subject="example", grant="header.payload.signature", cause="request-1",
        )  # fmt: skip
    return codec.event_messages(content, source="/example", time=NOON, cause="6f2a")[0]


def stored(content: Command | events.Event) -> Path:
    return EXAMPLES / f"{content.kind}.v{content.version}.json"


def as_document(message: Message) -> dict[str, object]:
    return {
        "type": message.type, "exchange": message.exchange, "routing_key": message.routing_key, "id": message.id,
        "content_type": message.content_type, "headers": dict(message.headers), "body": orjson.loads(message.body),
    }  # fmt: skip


@pytest.mark.parametrize("content", [*catalogue.COMMANDS, *catalogue.EVENTS], ids=lambda content: content.kind)
def test_what_is_written_today_equals_the_stored_example(content: Command | events.Event) -> None:
    assert as_document(message_of(content)) == orjson.loads(stored(content).read_bytes())


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.json")), ids=lambda file: file.stem)
def test_each_stored_example_decodes_to_what_was_meant(file: Path) -> None:
    document = orjson.loads(file.read_bytes())
    message = Message(**{**document, "body": orjson.dumps(document["body"])})
    meant = {content.kind: content for content in (*catalogue.COMMANDS, *catalogue.EVENTS)}
    assert codec.decode(message).content == meant[document["type"].removeprefix("eu.serai.").rpartition(".v")[0]]


def test_every_version_of_every_message_has_an_example() -> None:
    wanted = {f"{kind.kind}.v{version}" for kind in KINDS for version in range(1, kind.version + 1)}
    assert wanted == {file.stem for file in EXAMPLES.glob("*.json")}


def test_every_message_has_a_reader() -> None:
    assert set(commands.COMMANDS) == set(routes.RECEIVERS)
    assert set(events.EVENTS) == set(routes.READERS)
