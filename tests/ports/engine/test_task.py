"""What a task finds: its folder, its environment, its ports, and the user's text byte for byte."""

import random

import pytest

from shared.engine import Closing
from tests.ports.engine.site import SiteUnderTest, a_script, an_order

TIME_LIMIT = (2, 0, 6)
"""Since then Nomad knows `max_run_duration`; before, only the scheduler ends what runs too long (docs/sites.md)."""
PIECES = ["$", "{", "}", "%", "${", "%{", "$${", "%%{", "${HOME}", "${NOMAD_JOB_ID}", "${attr.kernel.name}", "${FOO}"]
PIECES += [
    "{{",
    "}}",
    '{{ env "HOME" }}',
    "%{ if true }",
    "`id`",
    "$(id)",
    "\\",
    '"',
    "'",
    "\n",
    "\t",
    " ",
    "é",
    "<serai-0<",
]


def hostile(count: int, seed: int) -> list[str]:
    """Texts that Nomad, HCL, Go templates and shells would each like to read for themselves."""
    dice = random.Random(seed)
    return ["", *PIECES, *("".join(dice.choices(PIECES, k=dice.randint(2, 8))) for _ in range(count))]


async def test_arguments_arrive_byte_for_byte(site: SiteUnderTest) -> None:
    words = hostile(150, seed=1)
    order = an_order("/bin/sh", "-c", 'for w; do printf "%s\\0" "$w"; done > words', "sh", *words)
    end = await site.ended(await site.submitted(order))
    assert (await site.file(end, "words")).decode().split("\0")[:-1] == words


async def test_the_environment_arrives_byte_for_byte(site: SiteUnderTest) -> None:
    values = hostile(100, seed=2)
    env = {f"V{number}": value for number, value in enumerate(values)}
    show = "; ".join(f'printf "%s\\0" "$V{number}"' for number in range(len(values)))
    end = await site.ended(await site.submitted(a_script(f"({show}) > values", env=env)))
    assert (await site.file(end, "values")).decode().split("\0")[:-1] == values


async def test_files_arrive_byte_for_byte_under_their_own_names(site: SiteUnderTest) -> None:
    texts = ["", "".join(hostile(40, seed=3)), "no newline", "<serai-0<<serai-1<", "a\r\nb\n", "{{ end }}"]
    names = ["empty", "deep/er/mix", "${HOME}", "%{if}", "a b", "$${FOO}"]
    files = [{"path": name, "content": text} for name, text in zip(names, texts, strict=True)]
    end = await site.ended(await site.submitted(an_order(files=files)))
    assert [(await site.file(end, name)).decode() for name in names] == texts


async def test_the_command_runs_in_the_folder_of_its_inputs_and_outputs(site: SiteUnderTest) -> None:
    script = {"path": "run.sh", "content": "#!/bin/sh\ncat in/data > out; echo $1 >> out\n", "executable": True}
    files = [script, {"path": "in/data", "content": "from the input\n"}]
    end = await site.ended(await site.submitted(an_order("./run.sh", "and an argument", files=files)))
    assert await site.file(end, "out") == b"from the input\nand an argument\n"


async def test_only_executable_files_are(site: SiteUnderTest) -> None:
    files = [{"path": "yes", "content": "#!", "executable": True}, {"path": "no", "content": "#!"}]
    check = "test -x yes && test ! -x no && test -r no"
    assert (await site.ended(await site.submitted(a_script(check, files=files)))).client_status == "complete"


async def test_the_task_knows_whose_it_is(site: SiteUnderTest) -> None:
    order = a_script('echo "$SERAI_JOB_ID/$SERAI_ATTEMPT/$SERAI_VO/$SERAI_SITE/$TRACEPARENT"')
    end = await site.ended(await site.submitted(order))
    said = (await site.output(end)).decode().strip()
    assert said == f"{order.attempt.job_id}/1/{order.spec.vo}/prague/{order.traceparent}"


async def test_a_command_that_is_not_there_is_a_driver_failure(site: SiteUnderTest) -> None:
    end = await site.ended(await site.submitted(an_order("/nowhere/at/all")))
    (task,) = end.tasks
    assert end.client_status == "failed"
    assert "Driver Failure" in {event.type for event in task.events}
    assert task.started_at is None


async def test_a_service_gets_its_ports_and_is_told_of_them(site: SiteUnderTest) -> None:
    order = a_script('echo "$NOMAD_PORT_http" > port; exec sleep 1000', kind="service", endpoints=[{"name": "http"}])
    running = await site.reached(await site.submitted(order), "running")
    ((label, host, port),) = running.ports
    assert (label, host) == ("http", "127.0.0.1")
    await site.watch.listing()
    assert await site.engine.close(order.attempt, "default") is Closing.STOPPING
    end = await site.ended(order)
    assert int(await site.file(end, "port")) == port


async def test_nomads_time_limit_ends_batch_work_and_says_so(site: SiteUnderTest) -> None:
    if not await site.since(*TIME_LIMIT):
        pytest.skip("this Nomad knows no time limit")
    async with site.with_settings(runtime_margin_s=0.5) as hasty:
        order = await hasty.submitted(a_script("exec sleep 1000", max_runtime_s=0.5))
        end = await hasty.ended(order)
    (task,) = end.tasks
    assert end.client_status == "complete"
    assert "Killing" in {event.type for event in task.events}
