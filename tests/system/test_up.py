"""`serai-platform up`: what it tells programs and people, whose ports and folders it takes, and when it refuses."""

import socket
from pathlib import Path

import httpx2

from tests.system.processes import FIRST_PORT, run, up


async def test_programs_are_told_every_address_in_the_first_line_and_people_what_to_type_next(folder: Path) -> None:
    async with up(folder) as platform:
        first = platform.first
        assert set(first) == {"gateway", "issuer", "sites", "users"}
        async with httpx2.AsyncClient(trust_env=False) as http:
            named = (await http.get(f"{first['gateway']}/v1")).json()
            assert [each["issuer"] for each in named["issuers"]] == [first["issuer"]]
            discovery = await http.get(f"{first['issuer']}/.well-known/openid-configuration")
            assert discovery.json()["issuer"] == first["issuer"]
            for site, agent in first["sites"].items():
                assert (await http.get(f"{agent}/v1/agent/self")).json()["config"]["Region"] == site
        assert [user["user"] for user in first["users"]][:3] == ["alice", "bob", "olga"]
        assert len(first["sites"]) == 3
        for user in first["users"]:
            assert (await platform.serai("login", "--user", user["user"])).code == 0
        ended = await platform.stop()
        for words in ("Ctrl-C", platform.gateway, "alice", "serai login --user alice", "Stopping ...", "Stopped."):
            assert words in ended.out


async def test_a_port_that_is_taken_is_left_to_its_owner_and_the_next_free_one_is_used(folder: Path) -> None:
    with socket.socket() as owner:
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = next(port for port in range(19_300, 19_400) if _bound(owner, port))
        owner.listen()
        async with up(folder, port=port) as platform:
            chosen = int(platform.gateway.rpartition(":")[2])
            assert port < chosen < port + 100
            ended = await platform.stop()
            assert (ended.code, ended.err) == (0, "")


async def test_a_second_platform_on_the_same_folder_is_refused_with_words(folder: Path) -> None:
    async with up(folder) as platform:
        words = ("--data", str(folder / "data"), "--port", str(FIRST_PORT))
        second = await run("serai-platform", "up", *words, folder=folder)
        assert (second.code, second.out) == (78, "")
        assert "another platform is running on" in second.err and "--data FOLDER" in second.err
        assert (await platform.serai("login", "--user", "alice")).code == 0, "the first one goes on"


def _bound(owner: socket.socket, port: int) -> bool:
    try:
        owner.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
