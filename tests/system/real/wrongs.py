"""What can be wrong with a service's dependencies when it starts, as a table.

Each entry makes it wrong, gives the environment of the process, and after its `yield` mends it at the other end: where
an operator would, without touching the process.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from services.embedded.folder import next_free_port
from tests.proxy import Proxy
from tests.system.real.ground import Ground, command

Environment = dict[str, str]
Story = Callable[[Ground, Environment], AsyncIterator[Environment]]


@dataclass(frozen=True, slots=True)
class Wrong:
    """`says`: which words `/readyz` and the log have for the dependency: what was tried, and how to mend it."""

    services: tuple[str, ...]
    dependency: str
    story: Story
    says: tuple[str, ...]


def nowhere(variable: str, port_of: Callable[[Ground], int]) -> Story:
    """Nobody listens at the address; then somebody does."""

    async def story(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
        port, real = next_free_port(20_100), port_of(ground)
        yield good | {variable: good[variable].replace(f":{real}", f":{port}")}
        async with Proxy(real, listen=port):
            yield {}

    return story


async def wrong_database_password(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    name = good["SERAI_DATABASE_URL"].rpartition("/")[2]
    await ground.sql(f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD 'right'")
    yield good | {"SERAI_DATABASE_URL": f"postgresql://{name}:wrong@127.0.0.1:{ground.database.port}/{name}"}
    await ground.sql(f"ALTER ROLE {name} PASSWORD 'wrong'")


async def no_database(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    yield good | {"SERAI_DATABASE_URL": ground.database.url("not_there")}
    await ground.database.database("not_there")


async def no_right_to_make_tables(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    name = good["SERAI_DATABASE_URL"].rpartition("/")[2]
    await ground.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    yield good | {"SERAI_DATABASE_URL": f"postgresql://{name}:x@127.0.0.1:{ground.database.port}/{name}"}
    await ground.sql(f"GRANT ALL ON SCHEMA public TO {name}", name)


async def newer_schema(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    """Of a release that came after ours; the operator puts the old state back."""
    name = good["SERAI_DATABASE_URL"].rpartition("/")[2]
    service = name.partition("_")[0]
    assert (
        await command(ground, "db", "upgrade", "--database-url", good["SERAI_DATABASE_URL"], "--service", service)
    ).code == 0
    await ground.sql("CREATE TABLE kept AS SELECT * FROM alembic_version", name)
    await ground.sql("UPDATE alembic_version SET version_num = '9999_later'", name)
    yield good
    await ground.sql("UPDATE alembic_version SET version_num = (SELECT version_num FROM kept)", name)


async def older_schema_that_we_may_not_change(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    """The service's user does not own the tables; who does runs `db upgrade`."""
    name = good["SERAI_DATABASE_URL"].rpartition("/")[2]
    await ground.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    yield good | {"SERAI_DATABASE_URL": f"postgresql://{name}:x@127.0.0.1:{ground.database.port}/{name}"}
    service = name.partition("_")[0]
    upgraded = await command(
        ground, "db", "upgrade", "--database-url", good["SERAI_DATABASE_URL"], "--service", service
    )
    assert upgraded.code == 0, upgraded.told
    await ground.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}", name)
    await ground.sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}", name)


async def wrong_broker_password(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    user = good["SERAI_DATABASE_URL"].rpartition("/")[2]
    await ground.broker.ctl("add_user", user, "right")
    await ground.broker.ctl("set_permissions", user, ".*", ".*", ".*")
    yield good | {"SERAI_AMQP_URL": ground.broker.url.replace("guest:guest", f"{user}:wrong")}
    await ground.broker.ctl("change_password", user, "wrong")


async def no_broker_permission(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    user = good["SERAI_DATABASE_URL"].rpartition("/")[2]
    await ground.broker.ctl("add_user", user, "x")
    await ground.broker.ctl("set_permissions", user, "^$", "^$", "^$")
    yield good | {"SERAI_AMQP_URL": ground.broker.url.replace("guest:guest", f"{user}:x")}
    await ground.broker.ctl("set_permissions", user, ".*", ".*", ".*")


async def no_virtual_host(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    host = good["SERAI_DATABASE_URL"].rpartition("/")[2]
    yield good | {"SERAI_AMQP_URL": ground.broker.url + host}
    await ground.broker.ctl("add_vhost", host)
    await ground.broker.ctl("set_permissions", "-p", host, "guest", ".*", ".*", ".*")


async def no_topology(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    host = good["SERAI_DATABASE_URL"].rpartition("/")[2]
    await ground.broker.ctl("add_vhost", host)
    await ground.broker.ctl("set_permissions", "-p", host, "guest", ".*", ".*", ".*")
    yield good | {"SERAI_AMQP_URL": ground.broker.url + host, "SERAI_AMQP_DECLARE": "false"}
    declared = await command(ground, "rabbitmq", "declare", "--amqp-url", ground.broker.url + host)
    assert declared.code == 0, declared.told


async def consul_nowhere(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    port, real = next_free_port(20_200), int(ground.consul.address.rpartition(":")[2])
    await ground.register_site()
    yield ground.with_consul(good) | {"SERAI_CONSUL__ADDRESS": f"http://127.0.0.1:{port}"}
    async with Proxy(real, listen=port):
        yield {}


async def wrong_consul_token(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    await ground.register_site()
    token = f"99999999-2222-3333-4444-{int(good['SERAI_PORT']):012d}"
    yield ground.with_consul(good, token)
    rules = (
        'node_prefix "" { policy = "read" } service_prefix "" { policy = "write" } agent_prefix "" { policy = "read" }'
    )
    await ground.in_consul("/v1/acl/policy", {"Name": f"p-{good['SERAI_PORT']}", "Rules": rules})
    await ground.in_consul("/v1/acl/token", {"SecretID": token, "Policies": [{"Name": f"p-{good['SERAI_PORT']}"}]})


async def no_site_in_consul(ground: Ground, good: Environment) -> AsyncIterator[Environment]:
    await ground.in_consul("/v1/agent/service/deregister/serai-site-prague", {})
    yield ground.with_consul(good)
    await ground.register_site()


ALL: Final = ("auth", "scheduler", "monitor", "gateway")
ON_THE_BUS: Final = ("scheduler", "monitor", "gateway")

WRONGS: Final = {
    "database: nobody at the address": Wrong(
        ALL, "database", nowhere("SERAI_DATABASE_URL", lambda ground: ground.database.port),
        ("127.0.0.1:20", "refused"),
    ),
    "database: wrong password": Wrong(
        ("auth",), "database", wrong_database_password, ("password authentication failed", "database_url"),
    ),
    "database: it does not exist": Wrong(("auth",), "database", no_database, ("not_there", "database_url")),
    "database: no right to make tables": Wrong(
        ("auth",), "database", no_right_to_make_tables, ("permission denied", "database_url")
    ),
    "database: of a newer release": Wrong(
        ("gateway",), "database", newer_schema, ("9999_later", "run the release that wrote it")
    ),
    "database: somebody else's, not upgraded": Wrong(
        ("auth",), "database", older_schema_that_we_may_not_change, ("permission denied", "database_url")
    ),
    "bus: nobody at the address": Wrong(
        ON_THE_BUS, "bus", nowhere("SERAI_AMQP_URL", lambda ground: ground.broker.port), ("127.0.0.1:20", "not answer")
    ),
    "bus: wrong password": Wrong(("monitor",), "bus", wrong_broker_password, ("user name or password",)),
    "bus: no permission": Wrong(("monitor",), "bus", no_broker_permission, ("docs/rabbitmq.md",)),
    "bus: no virtual host": Wrong(("gateway",), "bus", no_virtual_host, ("virtual host", "docs/rabbitmq.md")),
    "bus: no topology": Wrong(("scheduler",), "bus", no_topology, ("serai-platform rabbitmq declare",)),
    "consul: nobody at the address": Wrong(("monitor",), "consul", consul_nowhere, ("127.0.0.1:20",)),
    "consul: wrong token": Wrong(("scheduler",), "consul", wrong_consul_token, ("ACL not found", "docs/consul.md")),
    "consul: no site is registered": Wrong(
        ("scheduler",), "sites", no_site_in_consul, ("serai-site", "docs/consul.md")
    ),
}  # fmt: skip
