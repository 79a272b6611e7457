"""Which suspensions an exported audit log leaves in force: what a database that was restored from an older backup has
forgotten. Pure; `operating.py` reads the export and makes them again.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from services.auth.permissions import Verb
from shared.runtime.clock import moment

LIFTED: Final = "lifted "
_WHOM: Final = ("kind", "issuer", "value", "vo")


def in_force(records: Iterable[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """As they are to be asked for, oldest first; those that were lifted or are over are left out.

    Records of releases that did not note the id of a suspension cannot be matched with its lifting: these are kept.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["verb"] != Verb.SUSPEND or not record["allowed"]:
            continue
        if record["detail"].startswith(LIFTED):
            found.pop(record["detail"].removeprefix(LIFTED), None)
            continue
        asked = json.loads(record["detail"])
        id = asked.pop("id", f"record {record['position']}")
        if "for_s" in asked:
            asked["until"] = (moment(record["at"]) + timedelta(seconds=asked.pop("for_s"))).isoformat()
        found[id] = asked
    return [asked for asked in found.values() if "until" not in asked or datetime.fromisoformat(asked["until"]) > now]


def missing(wanted: Iterable[Mapping[str, Any]], held: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of whose kind and whom none holds. `held`: as auth lists suspensions."""
    there = {_whom(each) for each in held if each["lifted_at"] is None}
    return [each for each in wanted if _whom(each) not in there]


def _whom(suspension: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(suspension.get(name) or "" for name in _WHOM)
