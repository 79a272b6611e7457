"""Serai's client: hand in jobs to a Serai platform and follow them, from Python or the shell (`serai`)."""

from serai.client import Serai
from serai.connecting import connect
from serai.errors import BadJobFile, ClientError, Fault, NotUnderstood, Problem, Unreachable, WaitTimedOut
from serai.values import Event, Gap, Job

__all__ = [
    "BadJobFile",
    "ClientError",
    "Event",
    "Fault",
    "Gap",
    "Job",
    "NotUnderstood",
    "Problem",
    "Serai",
    "Unreachable",
    "WaitTimedOut",
    "connect",
]
