"""What a user writes stays data on the whole way: API, database, bus, Nomad's job, the task. Real processes run here.

The same against a real Nomad, text by text: tests/ports/engine/test_task.py.
"""

from pathlib import Path

from tests.scenarios.world import a_job, a_site, a_world

HOSTILE = (
    "${HOME}", "$${HOME}", "%{if true}x%{endif}", "${NOMAD_TOKEN}", "${env(\"HOME\")}", "{{ env \"HOME\" }}",
    "{{ key }}", "`id`", "$(id)", "; rm -rf / #", "a && b || c > d", "'\"'\"'", "<<EOF\nx\nEOF", "\\",
    "\\n", "\ttab", "line\nbreak",
    "", " ", "*", "?", "~", "!", "#", "é", "日本", "\u202e", "a\r\nb",
)  # fmt: skip
SHOW = """\
for word; do printf '%s\\0' "$word"; done > words
i=0; while [ $i -lt $COUNT ]; do eval "printf '%s\\0' \\"\\$V$i\\""; i=$((i+1)); done > values
"""


async def test_j6_j7_j8_arguments_variables_and_files_arrive_byte_for_byte(tmp_path: Path) -> None:
    environment = {f"V{number}": text for number, text in enumerate(HOSTILE)} | {"COUNT": str(len(HOSTILE))}
    script = "\n".join(HOSTILE)
    job = a_job(
        command=["/bin/sh", "-c", SHOW, "sh", *HOSTILE], env=environment,
        files=[{"path": "${HOME} {{ x }}.txt", "content": script}],
        outputs=[{"name": name, "path": path} for name, path in
                 (("words", "words"), ("values", "values"), ("file", "${HOME} {{ x }}.txt"))],
        labels={"text": "${HOME}"}, metadata={"note": "{{ env }} $(id)"},
    )  # fmt: skip
    async with a_world(tmp_path, a_site("prague"), mock=False) as world:
        alice = world.alice
        ended = await alice.sees(await alice.submit(job), "succeeded")
        found = {
            name: (await alice.http.get(f"/v1/jobs/{ended.id}/outputs/{name}")).content.decode()
            for name in ("words", "values", "file")
        }
        assert found["words"].split("\0")[:-1] == list(HOSTILE)
        assert found["values"].split("\0")[:-1] == list(HOSTILE)
        assert found["file"] == script
        shown = (await alice.http.get(f"/v1/jobs/{ended.id}")).json()
        assert shown["spec"]["metadata"] == {"note": "{{ env }} $(id)"}
        assert shown["labels"] == {"text": "${HOME}"}
