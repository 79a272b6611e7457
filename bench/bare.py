"""The denominator for reads: a FastAPI route that returns a ready model of about the size of a job. One worker."""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Job(BaseModel):
    id: str = "019aaaaa-0000-7000-8000-000000000001"
    state: str = "running"
    text: str = "x" * 900


_JOB = Job()


@app.get("/job")
async def job() -> Job:
    return _JOB


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, loop="uvloop", http="httptools")
