"""`filter=` expressions; outcomes asked of a real agent."""

import pytest

from services.embedded.agent.filters import FilterError, parse

ROW = {
    "JobID": "j-001",
    "Stop": False,
    "Priority": 50,
    "Datacenters": ["dc1"],
    "Meta": {"platform_id": "x", "a-b": "1", "d.t": "2"},
    "Empty": "",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ('Meta.platform_id == "x"', True),
        ('Meta.platform_id != "x"', False),
        ('Meta["a-b"] == "1"', True),
        ('Meta["d.t"] == "2"', True),
        ('Meta.missing == "x"', False),
        ('JobID matches "^j-0.1$"', True),
        ('JobID not matches "^j"', False),
        ("JobID matches `\\d+`", True),
        ("Stop == false", True),
        ("Priority == 50 and not (Stop == true)", True),
        ('JobID == "no" or Meta.platform_id == "x"', True),
        ('"dc1" in Datacenters', True),
        ('"dc2" not in Datacenters', True),
        ('Datacenters contains "dc1"', True),
        ("Empty is empty and Meta is not empty", True),
    ],
)
def test_expressions(text: str, holds: bool) -> None:
    assert parse(text)(ROW) is holds


@pytest.mark.parametrize(
    "text", ["((", "a b", "Priority > 3", 'JobID in ["a"]', "JobID ==", 'JobID matches "(("', '== "x"']
)
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(FilterError):
        parse(text)


def test_an_unknown_field_is_nomads_error() -> None:
    with pytest.raises(FilterError, match='couldn\'t find key: struct field with name "Nope"'):
        parse('Nope == "x"')(ROW)
