"""Each service's user of the broker and what it may do there, made from `routes.ACCESS`. Pure.

RabbitMQ checks three patterns on names (configure, write, read) and, when something is published to a topic exchange,
one more on the routing key. Services may configure nothing: the user `serai-deploy` declares the topology, once.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.adapters.rabbitmq import topology
from shared.contracts import routes
from shared.contracts.routes import Access
from shared.contracts.subscriptions import QUEUE_PREFIX

TOPIC_PERMISSIONS: Final = "set_topic_permissions"
NOTHING: Final = "^$"
ANYTHING: Final = ".*"
DEPLOY: Final = "serai-deploy"
SUBSCRIBERS: Final = "serai-subscribers"
ADMINISTRATOR: Final = "administrator"
SALT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Permissions:
    """Patterns as the broker takes them; `topics` are (exchange, pattern of routing keys to write)."""

    user: str
    configure: str
    write: str
    read: str
    topics: tuple[tuple[str, str], ...] = ()
    tags: str = ""


def subscribers() -> Permissions:
    """The gateway's user for readers outside, in their virtual host: makes and fills their queues, reads none.

    It makes their logins, too, and RabbitMQ lets only an administrator do that: hence a broker of their own is best.
    """
    return Permissions(SUBSCRIBERS, f"^{re.escape(QUEUE_PREFIX)}", r"^amq\.default$", NOTHING, tags=ADMINISTRATOR)


def all_permissions(access: Mapping[str, Access] = routes.ACCESS) -> tuple[Permissions, ...]:
    """Those of every user, the deploying one first."""
    services = (permissions(name, one) for name, one in access.items())
    return (Permissions(DEPLOY, ANYTHING, ANYTHING, ANYTHING), *services)


def permissions(name: str, access: Access) -> Permissions:
    """What `access` needs and nothing more.

    To look whether a stream is there takes any right to it (4.2.7 and 4.3.1; before 4.2.6 none). To write is the one
    that permits nothing else: nobody publishes to a queue but through an exchange.
    """
    return Permissions(
        user=user_of(name),
        configure=NOTHING,
        write=_one_of(map(re.escape, (*topology.exchanges_of(access), *topology.fed_by(access)))),
        read=_one_of(map(re.escape, topology.queues_of(access))),
        topics=tuple((exchange, _one_of(map(_key_pattern, keys))) for exchange, keys in access.publishes),
    )


def user_of(name: str) -> str:
    """The broker's user of a service."""
    return f"serai-{name}"


def commands(vhost: str, given: Iterable[Permissions]) -> list[list[str]]:
    """Arguments of `rabbitmqctl`, one command each; `add_user` asks for its password on standard input.

    The topic permissions come last: from RabbitMQ 4.3.2 on their exchanges must be there, which `declare` makes.
    """
    users = tuple(given)
    return [
        ["add_vhost", vhost],
        *(line for one in users for line in _commands_of(vhost, one)),
        *(
            [TOPIC_PERMISSIONS, "-p", vhost, one.user, exchange, keys, NOTHING]
            for one in users
            for exchange, keys in one.topics
        ),
    ]


def definitions(
    vhost: str, given: Iterable[Permissions], passwords: Mapping[str, str], salt: Callable[[], bytes]
) -> dict[str, Any]:
    """The same as a definitions file (`rabbitmqctl import_definitions`); `passwords` by user.

    `salt` gives four random bytes. With the exchanges that topic permissions are about, as `declare` makes them: from
    RabbitMQ 4.3.2 on they must be there. Raises KeyError for a user without a password.
    """
    users = tuple(given)
    return {
        "vhosts": [{"name": vhost}],
        "users": [
            {
                "name": one.user, "password_hash": hashed(passwords[one.user], salt()),
                "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": one.tags,
            }
            for one in users
        ],
        "permissions": [
            {"user": one.user, "vhost": vhost, "configure": one.configure, "write": one.write, "read": one.read}
            for one in users
        ],
        "exchanges": [
            {
                "name": exchange, "vhost": vhost, "type": "topic", "durable": True, "auto_delete": False,
                "internal": False, "arguments": {},
            }
            for exchange in sorted({exchange for one in users for exchange, _ in one.topics})
        ],
        "topic_permissions": [
            {"user": one.user, "vhost": vhost, "exchange": exchange, "write": keys, "read": NOTHING}
            for one in users
            for exchange, keys in one.topics
        ],
    }  # fmt: skip


def _commands_of(vhost: str, one: Permissions) -> list[list[str]]:
    return [
        ["add_user", one.user],
        *([["set_user_tags", one.user, one.tags]] if one.tags else []),
        ["set_permissions", "-p", vhost, one.user, one.configure, one.write, one.read],
    ]


def _one_of(patterns: Iterable[str]) -> str:
    found = list(patterns)
    return f"^({'|'.join(found)})$" if found else NOTHING


def _key_pattern(pattern: str) -> str:
    """An AMQP topic pattern as a regular expression; `#` only where it stands alone or at the end."""
    if pattern == "#":
        return ANYTHING
    words = [{"*": r"[^.]+"}.get(word, re.escape(word)) for word in pattern.removesuffix(".#").split(".")]
    return r"\.".join(words) + (r"(\..+)?" if pattern.endswith(".#") else "")


def hashed(password: str, salt: bytes) -> str:
    """RabbitMQ's salted SHA-256 (its documentation, "Password Hashing")."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
