"""What a process is told: who wins of caller, environment, file and default, and how a mistake is named."""

from pathlib import Path
from typing import Any

import pytest

from services.gateway.settings import GatewaySettings
from services.scheduler.settings import SchedulerSettings
from shared.errors import Misconfigured
from shared.processes.settings import ProcessSettings, read_file, read_settings

pytestmark = pytest.mark.fast

NEEDED = {"service_key": "hush", "service_keys": "auth=x", "database_url": "sqlite:///x"}
GUIDE = Path(__file__).parents[3] / "docs"
CONSUL = "http://127.0.0.1:8501"


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERAI_PORT", "SERAI_CONSUL", "SERAI_CONSUL__ADDRESS", "SERAI_CONSUL__TOKEN", "SERAI_HOST"):
        monkeypatch.delenv(name, raising=False)


def refusal(section: dict[str, Any], kind: Any = ProcessSettings, **given: Any) -> str:
    with pytest.raises(Misconfigured) as caught:
        read_settings(kind, section, **given)
    return caught.value.what


def file_refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Misconfigured) as caught:
        read_file({"SERAI_SETTINGS": str(path)})
    return caught.value.what


# -- who wins -----------------------------------------------------------------------------------------------------


def test_given_wins_over_the_environment_that_over_the_file_and_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_settings(ProcessSettings, NEEDED).port == 0
    assert read_settings(ProcessSettings, NEEDED | {"port": 1001}).port == 1001
    monkeypatch.setenv("SERAI_PORT", "1002")
    assert read_settings(ProcessSettings, NEEDED | {"port": 1001}).port == 1002
    assert read_settings(ProcessSettings, NEEDED | {"port": 1001}, port=1003).port == 1003


def test_an_environment_in_small_letters_wins_over_the_file_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("serai_port", "1002")
    assert read_settings(ProcessSettings, NEEDED | {"port": 1001}).port == 1002


def test_without_consul_there_is_none() -> None:
    assert read_settings(ProcessSettings, NEEDED).consul is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("ADDRESS", CONSUL), ("CA_FILE", "/etc/ca.pem"), ("TLS_SERVER_NAME", "server.dc1.consul"), ("WAIT_S", "7")],
)
def test_each_setting_of_consul_has_a_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"SERAI_CONSUL__{name}", value)
    consul = read_settings(ProcessSettings, NEEDED).consul
    assert consul is not None and str(getattr(consul, name.lower())) == value


def test_consul_is_read_from_environment_and_file_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    in_file = {"consul": {"address": "http://127.0.0.1:8500", "token": "from-file", "wait_s": 5}}
    monkeypatch.setenv("SERAI_CONSUL__ADDRESS", CONSUL)
    consul = read_settings(ProcessSettings, NEEDED | in_file).consul
    assert consul is not None
    assert (consul.address, consul.token.get_secret_value(), consul.wait_s) == (CONSUL, "from-file", 5)


def test_a_map_in_the_environment_takes_the_place_of_the_files_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAI_SCHEDULER_NAMESPACES", '{"vo.bio.example": "bio"}')
    section = {"service_token": "hush", "namespaces": {"vo.climate.example": "climate"}}
    assert read_settings(SchedulerSettings, section).namespaces == {"vo.bio.example": "bio"}


# -- mistakes -----------------------------------------------------------------------------------------------------


def test_what_is_missing_is_named_as_the_environment_spells_it() -> None:
    told = refusal({})
    assert "SERAI_DATABASE_URL: Field required" in told
    assert "docs/settings.md" in told
    assert "SERAI_SERVICE_KEY and SERAI_SERVICE_KEYS: both are needed" in refusal({"database_url": "sqlite:///x"})


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"amqp_ulr": "amqp://x"}, "SERAI_AMQP_ULR: there is no such setting"),
        ({"port": "many"}, "SERAI_PORT: Input should be a valid integer"),
        ({"consul": {"adress": CONSUL}}, "SERAI_CONSUL__ADRESS: there is no such setting"),
        ({"consul": {"wait_s": 0}}, "SERAI_CONSUL__WAIT_S: Input should be greater than"),
        ({"auth_url": "http://a:1, b:2"}, "SERAI_AUTH_URL: write http(s)://host:port without a path, not 'b:2'"),
        ({"advertise": "http://a:1/serai"}, "SERAI_ADVERTISE: write http(s)://host:port"),
        ({"consul": {}, "host": "0.0.0.0"}, "SERAI_ADVERTISE: needed with Consul where SERAI_HOST is 0.0.0.0"),
    ],
)
def test_a_wrong_setting_is_named_as_the_environment_spells_it(section: dict[str, Any], words: str) -> None:
    assert words in refusal(NEEDED | section)


def test_a_wrong_part_of_consul_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAI_CONSUL__ADDRESS", "127.0.0.1:8500")
    assert "SERAI_CONSUL__ADDRESS: " in refusal(NEEDED)


def test_a_list_in_the_environment_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAI_GATEWAY_ISSUERS", "https://issuer.example")
    assert "SERAI_GATEWAY_ISSUERS: is not JSON" in refusal({}, GatewaySettings, service_token="hush")


def test_the_place_within_a_list_is_told() -> None:
    told = refusal({"issuers": [{"name": "x"}]}, GatewaySettings, service_token="hush")
    assert "SERAI_GATEWAY_ISSUERS: 0.issuer: Field required" in told


def test_a_refusal_never_shows_a_value_that_may_be_a_secret() -> None:
    assert "tell-nobody" not in refusal(NEEDED | {"service_key": ["tell-nobody"]})


# -- the file -----------------------------------------------------------------------------------------------------


def test_without_a_file_there_are_no_sections() -> None:
    assert read_file({}) == {} and read_file({"SERAI_SETTINGS": ""}) == {}


def test_a_file_has_sections_and_an_empty_one_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "serai.yaml"
    path.write_text(f"process: {{consul: {{address: '{CONSUL}'}}}}\ngateway:\n")
    assert read_file({"SERAI_SETTINGS": str(path)}) == {"process": {"consul": {"address": CONSUL}}, "gateway": {}}
    path.write_text("")
    assert read_file({"SERAI_SETTINGS": str(path)}) == {}


def test_a_file_that_is_not_there_is_named_with_its_variable(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"SERAI_SETTINGS=.*/none.yaml: No such file"):
        read_file({"SERAI_SETTINGS": str(tmp_path / "none.yaml")})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("gatway: {port: 1}", "unknown section 'gatway'; there are process, gateway, scheduler, monitor, auth"),
        ("1: {port: 1}\nxy: {}", "unknown section '1'"),
        ("amqp_url: amqp://x", "write sections with settings in them: process, "),
        ("- process", "write sections with settings in them: process, "),
        ("process:\n  token: [tell-nobody\n", "line 3: not YAML: "),
        (b"process: \xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_wrong_file_is_told_with_what_to_write(tmp_path: Path, content: str | bytes, words: str) -> None:
    told = file_refusal(tmp_path / "serai.yaml", content)
    assert told.startswith(f"SERAI_SETTINGS={tmp_path}/serai.yaml") and words in told
    assert "tell-nobody" not in told


@pytest.mark.parametrize("page", ["processes.md", "consul.md"])
def test_the_settings_files_of_the_guides_are_read(tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [part.split("```")[0] for part in (GUIDE / page).read_text().split("```yaml\n")[1:]]
    (block,) = [block for block in blocks if block.startswith("process:")]
    (tmp_path / "serai.yaml").write_text(block)
    sections = read_file({"SERAI_SETTINGS": str(tmp_path / "serai.yaml")})
    if "service_keys" in sections["process"]:
        monkeypatch.setenv("SERAI_SERVICE_KEY", "from the environment of the one service")
    monkeypatch.setenv("SERAI_CONSUL__ADDRESS", CONSUL)
    consul = read_settings(ProcessSettings, NEEDED | sections["process"]).consul
    assert consul is not None and (consul.address, consul.token.get_secret_value()) == (CONSUL, "...")
    read_settings(SchedulerSettings, sections.get("scheduler", {}), service_token="hush")
    read_settings(GatewaySettings, sections.get("gateway", {}), service_token="hush")


# -- where this process is ----------------------------------------------------------------------------------------


def test_each_service_has_a_port_and_a_database_of_its_own() -> None:
    settings = read_settings(ProcessSettings, NEEDED | {"database_url": "postgresql://serai_{service}@db/{service}"})
    assert settings.database("monitor") == "postgresql://serai_monitor@db/monitor"
    assert [settings.own_url(each) for each in ("gateway", "auth")] == [
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8081",
    ]


def test_an_address_of_version_6_and_an_advertised_one_are_urls() -> None:
    assert read_settings(ProcessSettings, NEEDED | {"host": "::1"}).own_url("auth") == "http://[::1]:8081"
    told = NEEDED | {"host": "0.0.0.0", "advertise": "http://10.0.0.5:8081/", "consul": {}}
    assert read_settings(ProcessSettings, told).own_url("auth") == "http://10.0.0.5:8081"


def test_several_copies_stand_with_commas() -> None:
    settings = read_settings(ProcessSettings, NEEDED | {"monitor_url": "http://a:1, http://b:2,"})
    assert settings.addresses("monitor") == ("http://a:1", "http://b:2")


# -- the HTTP edge ------------------------------------------------------------------------------------------------


def test_the_edge_is_told_by_the_environment_or_the_file_setting_by_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAI_EDGE__ALLOWED_HOSTS", '["Jobs.example.org", "*.serai.example"]')
    file = {"edge": {"trusted_proxies": ["10.0.0.0/8"], "allowed_hosts": ["elsewhere.example"]}}
    edge = read_settings(ProcessSettings, file, **NEEDED).edge
    assert edge.allowed_hosts == ("jobs.example.org", "*.serai.example")
    assert str(edge.trusted_proxies[0]) == "10.0.0.0/8"
    assert edge.header_bytes == 16_384


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("allowed_hosts", ["https://jobs.example.org"], "without scheme"),
        ("allowed_hosts", ["jobs.example.org:8080"], "without scheme"),
        ("trusted_proxies", ["10.0.0.1/8"], "SERAI_EDGE__TRUSTED_PROXIES"),
        ("trusted_proxies", ["proxy"], "SERAI_EDGE__TRUSTED_PROXIES"),
        ("cors_origins", ["*"], "https://host"),
        ("cors_origins", ["https://portal.example.org/"], "https://host"),
        ("header_byte", 1, "no such setting"),
    ],
)
def test_a_mistake_about_the_edge_is_named(name: str, value: Any, words: str) -> None:
    assert words in refusal({"edge": {name: value}}, **NEEDED)
