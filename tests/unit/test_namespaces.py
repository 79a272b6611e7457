"""The slug from a VO's name to its Nomad namespace: what Nomad takes, and never the same for two VOs."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from services.scheduler.settings import SchedulerSettings
from shared.job import VO_PATTERN
from shared.namespaces import namespace_of

pytestmark = pytest.mark.fast

NOMADS = re.compile(r"^[a-zA-Z0-9-]{1,128}$")
VOS = st.from_regex(VO_PATTERN, fullmatch=True)


@pytest.mark.parametrize(
    ("vo", "namespace"),
    [
        ("vo.climate.example", "vo-climate-example"),
        ("eosc-synergy.eu", "eosc--synergy-eu"),
        ("my_vo", "my---vo"),
        ("a..b", "a----b"),
        ("Atlas", "Atlas"),
    ],
)
def test_names_stay_readable(vo: str, namespace: str) -> None:
    assert namespace_of(vo) == namespace


def test_what_is_too_long_keeps_its_beginning() -> None:
    vo = "vo." + "x" * 200 + ".example"
    assert NOMADS.match(namespace_of(vo))
    assert namespace_of(vo).startswith("vo-xxx")


def test_no_vo_is_put_into_nomads_own_namespace() -> None:
    assert namespace_of("default").startswith("default-")


def test_no_two_short_names_meet() -> None:
    """Every name up to six characters over two letters and the separators: where names could meet if they could."""
    names = ["".join(letters) for length in range(1, 7) for letters in product("aB._-", repeat=length)]
    vos = [name for name in names if re.match(VO_PATTERN, name)]
    assert len({namespace_of(vo) for vo in vos}) == len(vos) > 2000


@given(VOS)
def test_nomad_takes_every_one(vo: str) -> None:
    assert NOMADS.match(namespace_of(vo))


@given(VOS, VOS)
def test_no_two_names_meet(one: str, other: str) -> None:
    assert one == other or namespace_of(one) != namespace_of(other)


def test_a_vo_whose_namespace_was_given_away_gets_another() -> None:
    named = {"vo.climate.example": "climate"}
    assert namespace_of("vo.climate.example", named) == "climate"
    assert namespace_of("climate", named) not in ("climate", namespace_of("vo.climate.example"))


@pytest.mark.parametrize(
    ("namespaces", "words"),
    [
        ({"vo.one": "same", "vo.two": "same"}, "'same' is given to two VOs"),
        ({"vo.one": "default"}, "'default' is everybody's"),
        ({"vo.one": "not.a.slug"}, "should match pattern"),
    ],
)
def test_namespaces_that_cannot_be_are_refused_at_the_start(namespaces: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SchedulerSettings(service_token=SecretStr("hush"), namespaces=namespaces)
