"""The denominator for reads: a FastAPI route that returns a ready model of about the size of a job.

One worker, served exactly as the gateway is (`shared.runtime.serving`): same loop, parser and limits.

    python -m bench.bare PORT
"""

import asyncio
import signal
import sys

import uvloop
from fastapi import FastAPI
from pydantic import BaseModel

from shared.runtime.serving import HttpServer

app = FastAPI()


class Job(BaseModel):
    id: str = "019aaaaa-0000-7000-8000-000000000001"
    state: str = "running"
    text: str = "x" * 900


_JOB = Job()


@app.get("/job")
async def job() -> Job:
    return _JOB


async def _serve(port: int) -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    server = HttpServer(app, "127.0.0.1", port)
    await server.start()
    print("ready", flush=True)
    await told.wait()
    await server.stop()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
