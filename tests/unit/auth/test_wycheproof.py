"""Wycheproof's JWS and JWK vectors through our own reader: what they call invalid, we refuse.

The vectors are not part of this repository; they are looked for beside the checkout.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from services.auth.issuers import Algorithm
from services.auth.keys import usable
from shared.runtime import jws
from tests.unit.auth.world import trusted

FOLDER = Path(__file__).parents[3].parent / "shared" / "data" / "wycheproof"
pytestmark = [
    pytest.mark.fast,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the Wycheproof vectors are not beside the checkout"),
    pytest.mark.filterwarnings("ignore:EdDSA is deprecated", "ignore:Key size should be"),
]
EVERYTHING = trusted(algorithms=get_args(Algorithm))

DISPUTABLE: dict[str, str] = {
    **{f"{alg}/emptyPayload": "a token without claims is no token" for alg in (
        "rs256", "rs384", "rs512", "ps256", "ps384", "ps512",
    )},
    **{f"rfc7520{kind}/Figure20": "the key says PS256, the token PS384" for kind in ("", "WithKeyOps")},
    **{f"rfc7520{kind}/Figure27": "the key says ES521, which is no algorithm" for kind in ("", "WithKeyOps")},
}  # fmt: skip
"""Vectors that we read otherwise, and why."""


def vectors(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(group, test) of a file."""
    for group in json.loads((FOLDER / name).read_text())["testGroups"]:
        for test in group["tests"]:
            yield group, test


def key_set(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The public keys of a group, as an issuer would publish them."""
    published = group.get("public") or group.get("private") or {}
    return list(published.get("keys", [published]))


def accepts(group: dict[str, Any], token: object) -> bool:
    """Our reader's verdict: form, header, key by name, the key's own algorithm, signature."""
    keys = usable({"keys": [{"kid": "unnamed", **entry} for entry in key_set(group)]}, EVERYTHING)
    try:
        header, _ = jws.split(str(token), most_bytes=131_072)
    except jws.Malformed:
        return False
    key = keys.get(str(header.get("kid", "unnamed")))
    compact = jws.Compact(str(token), header, {})
    return key is not None and compact.algorithm in key.algorithms and jws.verify(compact, key.key, compact.algorithm)


@pytest.mark.parametrize("name", ["json_web_signature_test.json", "json_web_key_test.json"])
def test_what_wycheproof_calls_invalid_is_refused(name: str) -> None:
    wrong = [
        f"{test['tcId']}: {group.get('comment')}: {test['comment']}"
        for group, test in vectors(name)
        if test["result"] == "invalid" and accepts(group, test["jws"])
    ]
    assert wrong == []


def test_valid_signatures_with_public_keys_are_accepted_unless_we_say_why_not() -> None:
    refused = {
        f"{group.get('comment')}/{test['comment']}": test["tcId"]
        for group, test in vectors("json_web_signature_test.json")
        if test["result"] == "valid" and key_set(group)[0].get("kty") != "oct" and not accepts(group, test["jws"])
    }
    assert refused.keys() == DISPUTABLE.keys(), refused
