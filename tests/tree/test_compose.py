"""What can be known of compose/ without starting it: it loads, names only what exists, grants as little as it can.

No container is started here: compose/README.md says what that leaves open, and what was tried by hand.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from services import documents, example_env
from services.scheduler.draft import PHASES
from shared.adapters.rabbitmq import permissions
from shared.job import JobState
from shared.namespaces import namespace_of
from shared.processes.settings import FILE_VARIABLE, PORTS, ProcessSettings, read_settings
from shared.processes.sites_file import ConsulSitesFile, read_sites_file
from shared.runtime.service_identity import private_key, public_keys

pytestmark = pytest.mark.fast
ROOT = Path(__file__).parents[2]
HERE = ROOT / "compose"
OURS = ("auth", "gateway", "monitor", "scheduler")
ON_THE_BUS = ("gateway", "monitor", "scheduler")
ASKED = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
COMPOSE = yaml.safe_load((HERE / "compose.yaml").read_text())
PUBLISHED = yaml.safe_load((HERE / "published.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NO_COMMAND_TO_ASK = {"collector", "jaeger"}
BUILDS_ITSELF = {"keycloak"}
PLAIN = ("PUBLISH", "IMAGE", "COMPOSE_PROFILES")
"""What stands in `.env` and is no secret."""
VARIABLES = example_env.variables(documents.SETTINGS, documents.PREFIXES)


def files(*endings: str) -> list[Path]:
    kept = [line.strip("/") for line in (HERE / ".gitignore").read_text().splitlines() if line.startswith("/")]
    return [
        file
        for file in sorted(HERE.rglob("*"))
        if file.is_file() and file.relative_to(HERE).parts[0] not in kept and file.name.endswith(endings)
    ]


def secrets_of(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def filled(text: str, values: dict[str, str]) -> str:
    """The text as Compose reads it with these values."""
    return ASKED.sub(lambda found: values.get(found[1]) or (found[3] if found[2] == "-" else ""), text)


def short(file: Path) -> str:
    return str(file.relative_to(HERE))


def make_secrets(folder: Path) -> dict[str, str]:
    subprocess.run(["sh", HERE / "make-secrets", folder], check=True, capture_output=True)
    return secrets_of(folder / ".env")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make-secrets` leaves in an empty folder."""
    folder = tmp_path_factory.mktemp("made")
    make_secrets(folder)
    return folder


# -- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", files(".yaml", ".yml"), ids=short)
def test_every_yaml_file_loads(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text()), dict)


@pytest.mark.parametrize("file", files(".json"), ids=short)
def test_every_json_file_loads(file: Path) -> None:
    assert isinstance(orjson.loads(file.read_bytes()), dict)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_file_that_is_mounted_is_there_or_made_by_make_secrets(name: str, made: Path) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (HERE / source).exists() or (made / source).exists(), mount
            assert mount.endswith(":ro"), mount
        else:
            assert source in COMPOSE["volumes"], mount


@pytest.mark.parametrize("file", files("make-secrets", "set-up", "make-definitions", ".sh"), ids=short)
def test_scripts_can_be_read_by_a_shell_and_run(file: Path) -> None:
    assert os.access(file, os.X_OK)
    subprocess.run(["sh", "-n", file], check=True)


# -- images and privileges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_image_has_an_explicit_tag(name: str) -> None:
    image = filled(SERVICES[name]["image"], {})
    tag = image.rpartition("/")[2].partition(":")[2]
    assert re.search(r"\d", tag) and "latest" not in tag, image


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_has_as_little_as_it_can(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name not in BUILDS_ITSELF)
    user, _, _ = service["user"].partition(":")
    assert user.isdecimal() and int(user) > 0
    assert {"mem_limit", "cpus", "pids_limit"} <= set(service)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_lasting_container_is_looked_at(name: str) -> None:
    check = SERVICES[name].get("healthcheck", {})
    if SERVICES[name]["restart"] == "no" or name in NO_COMMAND_TO_ASK:
        assert not check.get("test")
    elif name in OURS:
        assert not check and re.search(r"^HEALTHCHECK .*healthcheck.py", (HERE / "Dockerfile").read_text(), re.M)
    else:
        assert check["test"] and {"interval", "timeout", "start_period", "retries"} <= set(check)


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n{}", 0, ""),
        (b'HTTP/1.1 503 Not Now\r\na: b\r\n\r\n1f\r\n{"checks": {"bus": "no"}}\r\n0\r\n\r\n', 1, 'Now {"checks"'),
        (b"", 1, ""),
    ],
)  # fmt: skip
def test_the_health_check_tells_ready_from_not_ready(answer: bytes, code: int, told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, HERE / "healthcheck.py"]
        asking = subprocess.Popen(command, env={"SERAI_PORT": str(port)}, stderr=subprocess.PIPE, text=True)
        with server.accept()[0] as connection:
            asked = connection.recv(4096)
            connection.sendall(answer)
        _, said = asking.communicate(timeout=30)
    assert asked == f"GET /readyz HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    assert asking.returncode == code and told in said


def test_the_health_check_says_when_nobody_listens() -> None:
    asked = subprocess.run(
        [sys.executable, HERE / "healthcheck.py"], env={"SERAI_PORT": "1"}, capture_output=True, text=True, timeout=30
    )
    assert asked.returncode == 1 and "127.0.0.1:1: " in asked.stderr


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_runs_once_is_waited_for_by_something_that_lasts(name: str) -> None:
    """Else `up --wait` takes its end for a failure."""
    if SERVICES[name]["restart"] == "no":
        waits = [each for each in SERVICES.values() if name in each.get("depends_on", {})]
        assert any(each["restart"] == "unless-stopped" for each in waits)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_run_leaves_a_volume_without_a_name(name: str) -> None:
    """These images ask for a volume; Docker makes one for each container that mounts nothing there."""
    asks = {"hashicorp/consul": "/consul/data", "postgres": "/var/lib/postgresql/data", "rabbitmq": "/var/lib/rabbitmq"}
    folder = asks.get(SERVICES[name]["image"].partition(":")[0])
    mounts = [*SERVICES[name].get("volumes", []), *SERVICES[name].get("tmpfs", [])]
    assert folder is None or any(folder in mount.split(":")[:2] for mount in mounts)


def test_what_is_waited_for_can_come() -> None:
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            once = SERVICES[name]["restart"] == "no"
            assert how["condition"] == ("service_completed_successfully" if once else "service_healthy")


def test_the_images_files_are_named_as_the_dockerfile_needs_them() -> None:
    text = (HERE / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M) for word in line.split()[:-1]}
    allowed = {line[1:] for line in (HERE / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert {name for name in copied if not name.startswith("--")} == allowed
    assert all((ROOT / name).exists() for name in allowed)
    assert "--require-hashes -r requirements.lock" in text
    assert re.search(r"^USER 10001:10001$", text, re.M)
    assert "syntax=" not in text, "a frontend would be one more image to fetch and to trust"
    for base in re.findall(r"^FROM (\S+)", text, re.M):
        assert base == "python:3.11-slim"


# -- networks -----------------------------------------------------------------------------------------------------


def test_only_the_gateway_is_published_and_by_default_on_loopback() -> None:
    published = {name: filled(port, {}) for name, each in SERVICES.items() for port in each.get("ports", [])}
    assert published == {"gateway": "127.0.0.1:8080:8080"}
    assert not any("network_mode" in each and each["network_mode"] != "none" for each in SERVICES.values())


def test_what_published_yaml_adds_is_on_loopback() -> None:
    for each in PUBLISHED["services"].values():
        assert set(each) <= {"profiles", "ports", "networks"}
        assert all(port.startswith("127.0.0.1:") for port in each["ports"])


def test_database_bus_and_registry_are_on_networks_without_a_way_out() -> None:
    out = {name for name, network in COMPOSE["networks"].items() if not network.get("internal")}
    assert out == {"front", "issuers", "sites"}
    for name in ("postgres", "rabbitmq", "consul", "collector", "prometheus"):
        assert not out & set(SERVICES[name]["networks"])
    reach = {name: out & set(SERVICES[name]["networks"]) for name in OURS}
    assert reach == {"auth": {"issuers"}, "gateway": {"front"}, "monitor": {"sites"}, "scheduler": {"sites"}}


def test_auth_is_not_on_the_bus() -> None:
    assert {name for name in OURS if "bus" in SERVICES[name]["networks"]} == set(ON_THE_BUS)


# -- settings -----------------------------------------------------------------------------------------------------


def test_the_services_are_those_that_there_are() -> None:
    assert set(OURS) == set(PORTS)


@pytest.mark.parametrize("file", files(""), ids=short)
def test_every_variable_of_ours_is_a_setting(file: Path) -> None:
    used = set(re.findall(r"\bSERAI_[A-Z][A-Z0-9_]*", file.read_text()))
    assert used - set(VARIABLES) - {FILE_VARIABLE} == set()


def test_example_env_has_every_setting_and_no_value_that_counts() -> None:
    text = (HERE / "example.env").read_text()
    assert re.findall(r"^#(SERAI_\w+)=", text, re.M) == [FILE_VARIABLE, *VARIABLES]
    assert not re.search(r"^[^#\n]", text, re.M)


def test_the_defaults_of_example_env_can_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (HERE / "example.env").read_text()
    for name, value in re.findall(r"^#(SERAI_\w+)=(.+)$", text, re.M):
        monkeypatch.setenv(name, value.strip("'"))
    for model in documents.SETTINGS.values():
        if model in example_env.NOT_FOR_CONTAINERS or model in documents.PREFIXES:
            continue
        process = {"service_key": "x", "service_keys": "x", "database_url": "x"}
        needed = process if model is ProcessSettings else {"service_token": "x"}
        read, untold = model(**needed), model.model_construct(**needed)
        differ = {
            name for name in model.model_fields if name != "consul" and _plain(read, name) != _plain(untold, name)
        }
        assert differ <= set(needed)


def _plain(settings: Any, name: str) -> object:
    value = getattr(settings, name)
    return value.model_dump() if hasattr(value, "model_dump") else value


@pytest.mark.parametrize("name", OURS)
def test_every_service_gets_all_that_it_needs(name: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = secrets_of(made / ".env")
    given = {key: filled(str(value), secrets) for key, value in SERVICES[name]["environment"].items()}
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = read_settings(ProcessSettings, {})
    assert settings.own_url(name) == f"http://{name}:8080"
    assert settings.listen_port(name) == 8080 and settings.host == "0.0.0.0"
    assert settings.consul is not None and name in settings.consul.service_hosts
    assert settings.database(name).startswith(
        f"postgresql://serai_{name}:{secrets[f'DATABASE_PASSWORD_{name.upper()}']}@"
    )
    assert settings.database(name).endswith(f"/serai_{name}")
    if name in ON_THE_BUS:
        address = settings.amqp_url.get_secret_value()
        assert address.startswith(f"amqp://{permissions.user_of(name)}:{secrets[f'AMQP_PASSWORD_{name.upper()}']}@")
        assert not settings.amqp_declare
    assert settings.identity(name).shown_to("auth").count(".") == 2 and settings.door(name)
    whole: Any = documents.SETTINGS[name](service_token=settings.service_key)
    if name == "auth":
        assert whole.key_secret and whole.secrets_key
    if name == "gateway":
        password = secrets["AMQP_PASSWORD_SUBSCRIBERS"]
        for url in (whole.subscribers_amqp_url, whole.subscribers_management_url):
            assert f"//{permissions.SUBSCRIBERS}:{password}@rabbitmq:" in url.get_secret_value()
        assert whole.subscribers_amqp_url.get_secret_value().endswith("/public")


def test_the_brokers_users_are_those_of_the_routes() -> None:
    wanted = {one.user.removeprefix("serai-") for one in permissions.all_permissions()}
    asked = re.search(r"^for user in (.*); do$", (HERE / "rabbitmq" / "make-definitions").read_text(), re.M)
    assert asked is not None and set(asked[1].split()) == wanted | {permissions.SUBSCRIBERS.removeprefix("serai-")}


def test_the_definitions_of_both_virtual_hosts_are_written_where_the_broker_reads_them(
    made: Path, tmp_path: Path
) -> None:
    secrets = secrets_of(made / ".env")
    passwords = {name: value for name, value in secrets.items() if name.startswith("AMQP_PASSWORD_")}
    here = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DEFINITIONS": str(tmp_path)}
    subprocess.run([HERE / "rabbitmq" / "make-definitions"], env=here | passwords, check=True, timeout=60)
    written = [orjson.loads((tmp_path / f"{name}.json").read_bytes()) for name in ("platform", "subscribers")]
    assert [each["vhosts"] for each in written] == [[{"name": "serai"}], [{"name": "public"}]]
    names = [user["name"] for each in written for user in each["users"]]
    assert len(names) == len(passwords) and written[1]["users"][0]["name"] == permissions.SUBSCRIBERS
    (folder,) = re.findall(r"^load_definitions = (.+)$", (HERE / "rabbitmq" / "rabbitmq.conf").read_text(), re.M)
    assert f"definitions:{folder}:ro" in SERVICES["rabbitmq"]["volumes"]


def test_the_broker_has_the_plugin_that_makes_subscribers_logins() -> None:
    assert (HERE / "rabbitmq" / "enabled_plugins").read_text() == "[rabbitmq_management].\n"
    assert any(mount.startswith("./rabbitmq/enabled_plugins:") for mount in SERVICES["rabbitmq"]["volumes"])
    assert "ports" not in SERVICES["rabbitmq"]


def test_the_example_of_sites_can_be_read() -> None:
    sites = read_sites_file(HERE / "sites" / "example.sites.yaml", ConsulSitesFile)
    register = orjson.loads((HERE / "consul" / "demo-site.json").read_bytes())["service"]
    assert [site.name for site in sites.sites] == [register["meta"]["site"]]


def test_the_example_site_makes_the_namespace_of_its_vo_at_each_start() -> None:
    """Nomad's data are gone with its container, and Docker starts it again without what ran once beside it."""
    site = next(
        each
        for each in yaml.safe_load((HERE / "sites" / "example.sites.yaml").read_text())["sites"]
        if each["name"] == "demo"
    )
    (namespace,) = map(namespace_of, site["vos"])
    nomad = SERVICES["nomad"]
    assert f"nomad namespace apply {namespace};" in nomad["command"][0]
    assert nomad["healthcheck"]["test"] == ["CMD", "nomad", "namespace", "status", namespace]


def test_the_example_site_can_write_beside_its_data_and_knows_its_own_user() -> None:
    """Nomad makes `alloc_mounts` beside its data folder; raw_exec asks for the name of the user that it runs as."""
    (data,) = re.findall(r'^data_dir +=+ "([^"]+)"', (HERE / "nomad" / "demo-site.hcl").read_text(), re.M)
    assert any(mount.startswith(f"{Path(data).parent}:uid=65534,") for mount in SERVICES["nomad"]["tmpfs"])
    assert SERVICES["nomad"]["user"] == "65534:65534"


# -- secrets ------------------------------------------------------------------------------------------------------


def test_no_secret_has_a_value_here() -> None:
    kept = secrets_of(HERE / "example.secrets.env")
    assert {name for name, value in kept.items() if value} == set(PLAIN)
    word = re.compile(r"(PASSWORD|TOKEN|SECRET|UUID)(?!.*(FILE|DIR))")
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if word.search(key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]*\}", str(value)), f"{name}: {key}"


def test_every_value_that_compose_asks_for_is_made_and_every_made_one_is_used() -> None:
    asked = {found[0] for found in ASKED.findall((HERE / "compose.yaml").read_text())}
    assert asked | {"COMPOSE_PROFILES"} == set(secrets_of(HERE / "example.secrets.env"))


def test_made_secrets_are_long_differ_and_fit_into_addresses(made: Path) -> None:
    secrets = secrets_of(made / ".env")
    secret = [value for name, value in secrets.items() if name not in (*PLAIN, "SERVICE_KEYS")]
    assert len(set(secret)) == len(secret)
    assert all(re.fullmatch(r"[0-9A-Za-z_-]{36,}", value) for value in secret)
    assert (made / ".env").stat().st_mode & 0o077 == 0


def test_what_is_mounted_can_be_read_also_where_the_tree_was_for_its_owner_alone(tmp_path: Path) -> None:
    here = tmp_path / "compose"
    shutil.copytree(HERE, here)
    for each in here.rglob("*"):
        each.chmod(each.stat().st_mode & 0o700)
    subprocess.run(["sh", here / "make-secrets"], check=True, capture_output=True)
    mounts = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    for source in (here / mount for mount in mounts if mount.startswith(".")):
        for each in (source, *source.rglob("*")):
            assert each.stat().st_mode & 0o044 == 0o044, each
            assert each.is_file() or each.stat().st_mode & 0o011 == 0o011, each
    assert (here / ".env").stat().st_mode & 0o077 == 0


def test_the_services_keys_belong_together(made: Path) -> None:
    secrets = secrets_of(made / ".env")
    known = public_keys(secrets["SERVICE_KEYS"])
    assert set(known) == set(OURS)
    for name in OURS:
        own = private_key(secrets[f"SERVICE_KEY_{name.upper()}"])
        assert [key.as_dict(private=False)["x"] for key in known[name]] == [own.as_dict(private=False)["x"]]


def test_making_secrets_again_keeps_what_is_there_and_adds_what_is_missing(made: Path, tmp_path: Path) -> None:
    first, text = secrets_of(made / ".env"), (made / ".env").read_text()
    (tmp_path / ".env").write_text(text.replace(f"AUTH_KEY_SECRET={first['AUTH_KEY_SECRET']}\n", ""))
    again = make_secrets(tmp_path)
    assert again["AUTH_KEY_SECRET"] != first["AUTH_KEY_SECRET"]
    assert again | {"AUTH_KEY_SECRET": ""} == first | {"AUTH_KEY_SECRET": ""}


def test_without_a_word_the_demo_site_runs_as_sites_yaml_says_and_who_takes_it_out_is_heard(
    made: Path, tmp_path: Path
) -> None:
    assert secrets_of(made / ".env")["COMPOSE_PROFILES"] == "site"
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=\n")
    assert make_secrets(tmp_path)["COMPOSE_PROFILES"] == ""


@pytest.mark.parametrize("name", OURS)
def test_no_service_is_given_a_secret_of_another(name: str) -> None:
    given = " ".join(str(value) for value in SERVICES[name]["environment"].values())
    others = [other for other in OURS if other != name]
    found = [found[0] for found in ASKED.findall(given)]
    assert not any(secret.endswith(f"_{other.upper()}") for secret in found for other in others)
    assert SERVICES[name]["env_file"] == ["serai.env"]


# -- dashboards ---------------------------------------------------------------------------------------------------


def test_the_dashboard_asks_only_for_what_the_collector_makes() -> None:
    collector = yaml.safe_load((HERE / "observe" / "collector.yaml").read_text())
    making = collector["connectors"]["spanmetrics"]
    labels = {each["name"].replace(".", "_") for each in making["dimensions"]}
    labels |= {"service_name", "span_name", "status_code", "le"}
    dashboard = orjson.loads((HERE / "grafana" / "dashboards" / "serai.json").read_bytes())
    for target in (target for panel in dashboard["panels"] for target in panel["targets"]):
        used = set(re.findall(r"(\w+)=~?\"|(\w+)!~\"", target["expr"])) | set(
            re.findall(r"by \(([^)]*)\)", target["expr"])
        )
        words = {
            word for each in used for part in (each if isinstance(each, tuple) else each.split(", ")) if (word := part)
        }
        assert words <= labels, target["expr"]
        assert set(re.findall(r"\bserai_(?:calls|duration)\w*", target["expr"])) <= {
            f"{making['namespace']}_calls_total", f"{making['namespace']}_duration_seconds_bucket",
        }  # fmt: skip


def test_the_dashboard_asks_for_spans_and_attributes_that_services_make() -> None:
    source = "".join(file.read_text() for folder in ("services", "shared") for file in (ROOT / folder).rglob("*.py"))
    collector = yaml.safe_load((HERE / "observe" / "collector.yaml").read_text())
    for dimension in collector["connectors"]["spanmetrics"]["dimensions"]:
        assert f'"{dimension["name"]}"' in source
    text = (HERE / "grafana" / "dashboards" / "serai.json").read_text()
    phases = set(re.findall(r"job\.(\w+)", text))
    assert phases and phases <= set(PHASES.values())
    assert JobState.QUEUED in PHASES


def test_the_dashboards_sources_are_provisioned() -> None:
    sources = yaml.safe_load((HERE / "grafana" / "provisioning" / "datasources" / "serai.yaml").read_text())
    text = (HERE / "grafana" / "dashboards" / "serai.json").read_text()
    used = {panel["datasource"]["uid"] for panel in orjson.loads(text)["panels"]}
    assert used <= {each["uid"] for each in sources["datasources"]}
    for each in sources["datasources"]:
        assert re.fullmatch(r"http://(\w+):\d+", each["url"]) and each["url"][7:].split(":")[0] in SERVICES


# -- Nomad's job files --------------------------------------------------------------------------------------------


def nomad() -> str:
    found = os.environ.get("NOMAD_BIN") or shutil.which("nomad")
    if not found:
        pytest.skip("there is no nomad on PATH and NOMAD_BIN is not set")
    return found


def test_nomads_files_are_formatted() -> None:
    subprocess.run([nomad(), "fmt", "-check", HERE / "nomad"], check=True, timeout=30)


def job_of(service: str) -> subprocess.CompletedProcess[bytes]:
    """Nomad's own reading of the job file."""
    told = [f"-var={each}" for each in (f"service={service}", "image=serai:0.1.0", "consul_address=http://consul:8500")]
    command = [nomad(), "job", "run", "-output", *told, HERE / "nomad" / "serai.nomad.hcl"]
    return subprocess.run(command, capture_output=True, timeout=60)


@pytest.mark.parametrize("name", OURS)
def test_every_service_has_a_job_that_nomad_understands(name: str) -> None:
    read = job_of(name)
    assert read.returncode == 0, read.stderr
    job = orjson.loads(read.stdout)["Job"]
    (task,) = job["TaskGroups"][0]["Tasks"]
    assert job["ID"] == job["Name"] == f"serai-{name}" and task["Config"]["args"] == [name]
    assert task["User"] == "10001:10001" and task["Config"]["readonly_rootfs"] is True
    assert task["Config"]["cap_drop"] == ["all"] and task["Config"]["security_opt"] == ["no-new-privileges"]
    assert set(re.findall(r"nomad/jobs/([\w-]+)", str(task["Templates"]))) == {f"serai-{name}"}
    given = set(task["Env"]) | set(re.findall(r"^(SERAI_\w+)=", task["Templates"][0]["EmbeddedTmpl"], re.M))
    needed = {f"SERAI_{key.upper()}" for key, field in ProcessSettings.model_fields.items() if field.is_required()}
    assert needed | {"SERAI_SERVICE_KEY", "SERAI_SERVICE_KEYS"} <= given <= set(VARIABLES)
    assert ("SERAI_AMQP_URL" in given) is (name in ON_THE_BUS)
    assert ("SERAI_SITES" in given) is (name in ("monitor", "scheduler"))
    files = {template["DestPath"] for template in task["Templates"][1:]}
    assert files == {value for value in task["Env"].values() if value.endswith(".yaml")}


def test_a_service_that_there_is_not_has_no_job() -> None:
    assert b"auth, gateway, monitor or scheduler" in job_of("schedular").stderr


def test_the_readme_puts_every_variable_that_a_job_reads() -> None:
    told = (HERE / "README.md").read_text()
    for name in OURS:
        (line,) = re.findall(rf"^nomad var put nomad/jobs/serai-{name} +(.*)$", told, re.M)
        job = orjson.loads(job_of(name).stdout)["Job"]
        templates = str(job["TaskGroups"][0]["Tasks"][0]["Templates"])
        assert set(re.findall(r"(\w+)=", line)) == set(re.findall(r"\{\{ \.(\w+) \}\}", templates))


# -- Docker's own opinion -----------------------------------------------------------------------------------------


def test_docker_compose_takes_the_files(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, timeout=30).returncode:
        pytest.skip("there is no `docker compose` on PATH")
    shutil.copytree(HERE, tmp_path / "compose")
    make_secrets(tmp_path / "compose")
    command = [docker, "compose", "-f", "compose.yaml", "-f", "published.yaml", "--profile", "*", "config", "--quiet"]
    told = subprocess.run(command, cwd=tmp_path / "compose", capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
