"""What Nomad's answers mean to those who asked."""

import pytest

from shared.adapters.nomad.answers import error_of, says_taken
from shared.errors import Misconfigured, NotFound, OutcomeUnknown, Refused, SeraiError, Unavailable

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("status", "text", "read", "written"),
    [
        (403, "Permission denied", Misconfigured, Misconfigured),
        (500, "rpc error: Permission denied", Misconfigured, Misconfigured),
        (500, "ACL token expired", Misconfigured, Misconfigured),
        (500, 'job "x" is in nonexistent namespace "y"', Misconfigured, Misconfigured),
        (404, "job not found", NotFound, NotFound),
        (400, "Request body is empty", Refused, Refused),
        (429, "Your IP is issuing too many concurrent connections", Unavailable, Unavailable),
        (500, "No cluster leader", Unavailable, Unavailable),
        (500, "No path to region", Unavailable, Unavailable),
        (500, "leadership lost while committing log", Unavailable, OutcomeUnknown),
        (502, "bad gateway", Unavailable, OutcomeUnknown),
    ],
)
def test_an_answer_says_what_to_do_next(
    status: int, text: str, read: type[SeraiError], written: type[SeraiError]
) -> None:
    assert type(error_of(status, text, "cluster a", wrote=False)) is read
    assert type(error_of(status, text, "cluster a", wrote=True)) is written


def test_the_two_ways_to_say_that_an_id_is_taken() -> None:
    assert says_taken(500, "Enforcing job modify index 0: job already exists")
    assert says_taken(500, 'cannot update job from type "batch" to "service"')
    assert not says_taken(500, "No cluster leader")
