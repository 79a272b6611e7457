"""For programs that run as a job: tell the platform how far one has come, with the job's own token.

    from serai import inside
    inside.report(0.5, "epoch 10 of 20", loss=0.031)

Nothing happens where the program does not run as a job, and nothing is raised where the platform cannot be reached: a
report is never worth a run. The token is read anew each time, since the site renews it. Standard library only.
"""

import json
import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

DEADLINE_S: Final = 5.0


def report(
    fraction: float | None = None, message: str = "", /, *, environment: Mapping[str, str] = os.environ,
    **results: float | int | bool | str,
) -> bool:  # fmt: skip
    """Tell how far this job has come: from 0 to 1, in words, and small figures. Whether it was heard.

    The platform hears one report in two seconds, of long runs fewer; those that come sooner are not heard.
    """
    url, job, file = (environment.get(name) for name in ("SERAI_URL", "SERAI_JOB_ID", "SERAI_TOKEN_FILE"))
    if not (url and job and file):
        return False
    body = json.dumps({"fraction": fraction, "message": message, "results": results}).encode()
    try:
        headers = {"Authorization": f"Bearer {Path(file).read_text()}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/jobs/{job}/progress", body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=DEADLINE_S):
            return True
    except (OSError, ValueError):
        return False
