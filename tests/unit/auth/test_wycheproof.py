"""Wycheproof's JWS and JWK vectors through our own reader: what they call invalid, we refuse.

The vectors are not part of this repository; they are looked for beside the checkout.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from joserfc.jwk import OctKey

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

DISPUTABLE: dict[int, str] = {
    346: "the key says PS256, the token PS384", 347: "the key says ES521, which is no algorithm",
    350: "the key says PS256, the token PS384", 351: "the key says ES521, which is no algorithm",
    367: "called invalid, yet the same as the valid 357", 370: "called invalid, yet the same as the valid 357",
    372: "asks to accept a character that is no base64url", 373: "asks to accept a character that is no base64url",
}  # fmt: skip
"""The eight of 401 that we read otherwise, and why."""
SYMMETRIC = {2, 13, 14, 15}
"""Key sets of JWK vectors whose valid tokens we refuse: an issuer that signs with a shared secret is none."""


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


def reads(group: dict[str, Any], token: object) -> bool:
    """The verdict of reader and signature alone, without our rule that issuers have no symmetric keys."""
    return accepts(group, token) or any(
        _made_with(OctKey.import_key(key), key, str(token)) for key in key_set(group) if key.get("kty") == "oct"
    )


def _made_with(key: Any, entry: dict[str, Any], token: str) -> bool:
    try:
        header, _ = jws.split(token, most_bytes=131_072)
    except jws.Malformed:
        return False
    named = header.get("kid", entry.get("kid")) == entry.get("kid")
    algorithm = str(header["alg"])
    return (
        named
        and entry.get("alg", algorithm) == algorithm
        and jws.verify(jws.Compact(token, header, {}), key, algorithm)
    )


def test_signatures_are_judged_as_published_but_for_eight_that_we_name(record_property: Any) -> None:
    judged = {
        test["tcId"]: reads(group, test["jws"]) == (test["result"] == "valid")
        for group, test in vectors("json_web_signature_test.json")
    }
    otherwise = {case for case, agreed in judged.items() if not agreed}
    right, named = len(judged) - len(otherwise), len(DISPUTABLE)
    counted = f"{right} of {len(judged) - named}, {named} of {len(judged)} named"
    record_property("wycheproof JWS", counted)
    print(f"Wycheproof JWS: {counted}")
    assert otherwise == DISPUTABLE.keys()
    assert right == 393


def test_key_sets_are_judged_as_published_but_for_shared_secrets_which_no_issuer_has(record_property: Any) -> None:
    judged = {
        test["tcId"]: (test["result"], accepts(group, test["jws"])) for group, test in vectors("json_web_key_test.json")
    }
    right = [
        case for case, (result, accepted) in judged.items() if accepted == (result == "valid" and case not in SYMMETRIC)
    ]
    counted = f"{len(right)} of {len(judged)}, {len(SYMMETRIC)} of them refused for being shared secrets"
    record_property("wycheproof JWK", counted)
    print(f"Wycheproof JWK: {counted}")
    assert len(right) == len(judged) == 26


@pytest.mark.parametrize("name", ["json_web_signature_test.json", "json_web_key_test.json"])
def test_what_wycheproof_calls_invalid_is_refused(name: str) -> None:
    wrong = [
        f"{test['tcId']}: {group.get('comment')}: {test['comment']}"
        for group, test in vectors(name)
        if test["result"] == "invalid" and accepts(group, test["jws"])
    ]
    assert wrong == []


def test_no_shared_secret_is_a_key_here_whatever_it_signs() -> None:
    signed = [test["tcId"] for group, test in vectors("json_web_signature_test.json")
              if key_set(group)[0].get("kty") == "oct" and accepts(group, test["jws"])]  # fmt: skip
    assert signed == []
