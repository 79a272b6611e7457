"""What a site says of itself in its service's meta, read strictly. Pure. Whoever may register there wrote it.

Consul allows 64 keys of 128 letters with values of 512. Lists are separated by commas. Settings win over meta; of
address and hosts only settings say what is allowed.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from shared.adapters.consul import addresses
from shared.adapters.consul.answers import one_line
from shared.adapters.consul.reading import Instance
from shared.adapters.consul.settings import ListedSite
from shared.job import VO_PATTERN
from shared.site import Site

NAME_KEY: Final = "site"
ADDRESS_KEY: Final = "nomad_address"


class BadMeta(Exception):
    """A sentence for the operator of the site: which key, what stands there, what to write."""


class BadAddress(BadMeta):
    """The address is not one where the site's Nomad is allowed to be: the copy is ignored."""


def site_of(listed: ListedSite, instance: Instance) -> Site:
    """The site as settings and this copy of its service describe it, without its health. Raises BadMeta."""
    facts = {field: _fact(listed, instance, field, *how) for field, how in _FACTS.items()}
    given = {field: value for field, value in facts.items() if value is not None}
    return Site(name=listed.name, cluster=listed.cluster or listed.name, address=_address(listed, instance), **given)


def _fact(listed: ListedSite, instance: Instance, field: str, key: str, read: "Reader", needed: bool) -> Any:
    if (told := getattr(listed, field)) is not None:
        return told
    text = instance.meta.get(key)
    if text is None:
        if needed:
            raise BadMeta(
                _of(listed, instance, f"lacks the meta `{key}`: register it, or set it for the site in settings")
            )
        return None
    try:
        return read(text.strip())
    except ValueError as wrong:
        raise BadMeta(_of(listed, instance, f"has the meta `{key}` = '{one_line(text, 60)}': write {wrong}")) from None


def _of(listed: ListedSite, instance: Instance, what: str) -> str:
    return f"service {listed.service} on node {one_line(instance.node, 60)} {what}"


def _address(listed: ListedSite, instance: Instance) -> str:
    """Where Nomad answers: of the settings, else of the meta, else the service's own address and port."""
    if listed.address is not None:
        return listed.address
    text = instance.meta.get(ADDRESS_KEY)
    if text is not None:
        place = addresses.place_of(text.strip())
    else:
        place = addresses.made("http" if listed.plain_http else "https", instance.address, instance.port)
    if place is None:
        said = text if text is not None else f"{instance.address}:{instance.port}"
        raise BadAddress(
            _of(
                listed,
                instance,
                f"says that Nomad is at '{one_line(said, 80)}': write `{ADDRESS_KEY}` as https://host:port",
            )
        )
    if listed.allowed_hosts and not addresses.allowed(place.host, listed.allowed_hosts):
        raise BadAddress(
            _of(listed, instance, f"says that Nomad is at {place.url}, which is not in the site's `allowed_hosts`")
        )
    if place.scheme != "https" and not listed.plain_http:
        raise BadAddress(_of(listed, instance, f"says that Nomad is at {place.url}, without TLS: use https"))
    return place.url


# -- how each value is written ------------------------------------------------------------------------------------

Reader = Callable[[str], Any]
"""The value of a text; raises ValueError with the words that follow "write ..."."""


def _matching(pattern: str, form: str) -> Reader:
    compiled = re.compile(pattern)

    def read(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(form)
        return text

    return read


def _several(pattern: str, form: str, most: int) -> Reader:
    one = _matching(pattern, form)

    def read(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(one(part.strip()) for part in text.split(",")))
        if len(found) > most:
            raise ValueError(f"at most {most} of them")
        return found

    return read


def _number(least: float, most: float, example: str) -> Reader:
    form = f"a number from {least:g} to {most:g}, as {example}"

    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,9})?", text) or not least <= float(text) <= most:
            raise ValueError(form)
        return float(text)

    return read


def _whole(least: int, most: int, example: str) -> Reader:
    number = _number(least, most, example)

    def read(text: str) -> int:
        if "." in text:
            raise ValueError(f"a whole number from {least} to {most}, as {example}")
        return int(number(text))

    return read


_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"

_FACTS: Final[Mapping[str, tuple[str, Reader, bool]]] = {
    "country": ("country", _matching(r"[A-Z]{2}", "two capital letters (ISO 3166), as CZ"), True),
    "vos": (
        "vos",
        _several(VO_PATTERN, "names of VOs separated by commas, as vo.one.example,vo.two.example", 64),
        True,
    ),
    "region": ("nomad_region", _matching(_WORD, "the name of a Nomad region"), False),
    "datacenters": ("nomad_datacenters", _several(_WORD, "names of Nomad datacenters separated by commas", 64), False),
    "node_pool": ("nomad_node_pool", _matching(_WORD, "the name of a Nomad node pool"), False),
    "hardware": ("hardware", _several(_WORD, "words separated by commas, as x86_64,ssd", 32), False),
    "mhz_per_core": ("mhz_per_core", _whole(1, 100_000, "2400"), False),
    "carbon_g_per_kwh": ("carbon_g_per_kwh", _number(0, 5000, "412.5"), False),
    "cost_per_core_hour": ("cost_per_core_hour", _number(0, 10_000, "0.02"), False),
}
"""Field of `Site` -> key of the meta, how it is read, and whether the site must say it."""
