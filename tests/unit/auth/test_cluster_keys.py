"""A cluster that changes the key with which it signs its tasks' tokens, while tasks run (`nomad operator root keyring
rotate`): the new key signs at once, the old one is published until what it signed is over.
"""

from pathlib import Path
from uuid import uuid4

import pytest

from services.auth.issuers import Issuer
from tests.unit.auth.world import Auth, FakeIssuer, auth, ec_key, signed

pytestmark = pytest.mark.fast
CLUSTER = "https://nomad.prague.example"
COOL_DOWN_S = 60
REFRESH_S = 3_600


def task_token(cluster: FakeIssuer, running: Auth, key: int = 0) -> str:
    """A fresh token of a task, signed by one of the cluster's keys."""
    now = int(running.clock().timestamp())
    return signed(cluster.keys[key], {
        "iss": cluster.url, "aud": "serai", "sub": "prague:default:j:main:main:serai", "iat": now, "exp": now + 900,
        "nomad_job_id": f"{uuid4()}-001", "nomad_namespace": "default", "nomad_allocation_id": "a1",
        "nomad_task": "main",
    }, typ="JWT")  # fmt: skip


async def test_i3_a_clusters_key_is_rotated_while_its_tasks_run(tmp_path: Path) -> None:
    cluster = FakeIssuer(CLUSTER)
    trust = Issuer(issuer=CLUSTER, profile="nomad", audiences=("serai",), algorithms=("ES256",), sites=("prague",))
    async with auth(tmp_path, cluster, trust=(trust,)) as running:
        assert await running.code(task_token(cluster, running)) == ""
        running.clock.forward(COOL_DOWN_S)
        cluster.keys.insert(0, ec_key("second"))
        fetches = cluster.fetches
        assert await running.code(task_token(cluster, running)) == "", "the new key is looked for at once"
        assert await running.code(task_token(cluster, running, key=1)) == "", "what the old one signed is good"
        assert cluster.fetches == fetches + 1

        cluster.keys.insert(0, ec_key("third"))
        assert await running.code(task_token(cluster, running)) == "unauthenticated", "looked for a moment ago"
        running.clock.forward(COOL_DOWN_S)
        assert await running.code(task_token(cluster, running)) == ""

        withdrawn = cluster.keys.pop()
        running.clock.forward(REFRESH_S + 1)
        cluster.keys.append(withdrawn)
        stolen = task_token(cluster, running, key=-1)
        cluster.keys.pop()
        assert await running.code(task_token(cluster, running)) == ""
        assert await running.code(stolen) == "unauthenticated", "a withdrawn key ends with the next look"
