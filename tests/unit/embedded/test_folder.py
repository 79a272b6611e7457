"""The data folder: one owner at a time, ports that stay, and words for whoever cannot have it."""

import socket
from pathlib import Path

import pytest

from services.embedded.folder import next_free_port, open_folder
from services.embedded.running import fresh_folder
from services.embedded.sites import BUILT_IN, clusters_of, read_sites
from shared.errors import Misconfigured
from tests.builders import NOON
from tests.free_ports import free_port

pytestmark = pytest.mark.fast
FIRST = free_port(26_000)
"""Another one in each worker: tests that take ports and look for them run side by side."""

SITE = "- {name: brno, country: CZ, vos: [vo.bio.example], cores: 1, memory_mib: 512}\n"


def test_secret_and_ports_stay_the_same_over_a_restart(tmp_path: Path) -> None:
    first = open_folder(tmp_path / "data")
    port = first.port("gateway", FIRST)
    first.lock.close()
    again = open_folder(tmp_path / "data")
    assert (again.service_token, again.port("gateway", FIRST)) == (first.service_token, port)
    assert (tmp_path / "data" / "platform.json").stat().st_mode & 0o077 == 0


def test_a_port_that_somebody_took_meanwhile_is_left_to_them(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    port = folder.port("gateway", FIRST)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        assert folder.port("gateway", FIRST) > port


def test_the_issuer_stays_where_it_was_wherever_the_others_begin(tmp_path: Path) -> None:
    first = open_folder(tmp_path)
    port = first.issuer_port(FIRST)
    assert first.issuer_port(FIRST + 20) == port
    first.lock.close()
    again = open_folder(tmp_path)
    assert again.issuer_port(FIRST + 20) == port


def test_an_issuers_port_that_somebody_took_is_named_and_no_other_is_taken_in_its_place(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    port = folder.issuer_port(FIRST)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(Misconfigured, match=rf"port {port} .* tokens and owners of jobs .*ss -ltnp"):
            folder.issuer_port(FIRST)
    assert folder.issuer_port(FIRST) == port


def test_two_names_never_get_the_same_port(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    assert folder.port("gateway", FIRST) != folder.port("issuer", FIRST)
    assert next_free_port(FIRST, {FIRST}) > FIRST


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    owner = open_folder(tmp_path / "data")
    with pytest.raises(Misconfigured, match=r"another platform is running on .*--data FOLDER"):
        open_folder(tmp_path / "data")
    owner.lock.close()
    open_folder(tmp_path / "data")


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match=r"cannot write to the data folder .*--data FOLDER"):
        open_folder(tmp_path / "file")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"ports": {}}'])
def test_a_damaged_note_of_the_folder_is_told_with_its_name(tmp_path: Path, content: str) -> None:
    open_folder(tmp_path).lock.close()
    (tmp_path / "platform.json").write_text(content)
    with pytest.raises(Misconfigured, match=r"platform\.json cannot be read; remove it"):
        open_folder(tmp_path)


def test_each_run_has_its_own_folder_even_in_the_same_second(tmp_path: Path) -> None:
    first = fresh_folder(NOON, tmp_path)
    first.mkdir()
    assert first.name == "2026-11-24_12-00-00" and fresh_folder(NOON, tmp_path).name == "2026-11-24_12-00-00_2"


def test_the_sites_are_the_built_in_ones_or_those_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "sites.yaml").write_text(SITE)
    assert read_sites(None) == BUILT_IN
    assert [site.name for site in read_sites(tmp_path / "sites.yaml")] == ["brno"]


@pytest.mark.parametrize("content", ["[]", SITE + SITE])
def test_a_file_names_at_least_one_site_and_each_once(tmp_path: Path, content: str) -> None:
    (tmp_path / "sites.yaml").write_text(content)
    with pytest.raises(Misconfigured, match="at least one site, and each name once"):
        read_sites(tmp_path / "sites.yaml")


def test_sites_that_share_a_cluster_have_a_place_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "sites.yaml"
    other = SITE.replace("name: brno", "name: brno-2, cluster: brno")
    file.write_text(SITE + other)
    with pytest.raises(Misconfigured, match="sites of cluster brno: give each a datacenter or node_pool of its own"):
        read_sites(file)
    file.write_text(SITE + other.replace("cluster: brno", "cluster: brno, node_pool: gpu"))
    assert {name: len(sites) for name, sites in clusters_of(read_sites(file)).items()} == {"brno": 2}
