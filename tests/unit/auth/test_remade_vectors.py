"""Signatures and their spellings, made here anew for every algorithm: runs also where Wycheproof is not at hand.

The kinds of faults are those that Wycheproof's JSON Web Signature vectors are about; keys and tokens are our own.
"""

import base64
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jws as joserfc_jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from services.auth.issuers import Algorithm
from services.auth.keys import usable
from shared.runtime import jws
from tests.unit.auth.world import RSA, trusted

pytestmark = [
    pytest.mark.fast,
    pytest.mark.filterwarnings("ignore:EdDSA is deprecated", "ignore:Key size should be"),
]
ALGORITHMS = get_args(Algorithm)
EVERYTHING = trusted(algorithms=ALGORITHMS)
CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
OTHER_RSA = RSAKey.generate_key(2048)
PAYLOAD = b'{"sub":"alice"}'


def key_for(algorithm: str) -> Any:
    if algorithm in CURVES:
        return ECKey.generate_key(CURVES[algorithm])
    return OKPKey.generate_key("Ed25519") if algorithm in ("Ed25519", "EdDSA") else RSA


def signed(algorithm: str, key: Any, payload: bytes = PAYLOAD) -> str:
    registry = joserfc_jws.JWSRegistry(algorithms=[algorithm])
    return joserfc_jws.serialize_compact({"alg": algorithm, "kid": "k"}, payload, key, registry=registry)


def accepts(algorithm: str, key: Any, token: str) -> bool:
    """As a token of an issuer whose one key this is."""
    published = {**key.as_dict(private=False), "kid": "k", "use": "sig", "alg": algorithm}
    known = usable({"keys": [published]}, EVERYTHING).get("k")
    try:
        header, _ = jws.split(token, most_bytes=65_536)
    except jws.Malformed:
        return False
    return known is not None and jws.verify(jws.Compact(token, header, {}), known.key, algorithm)


def raw(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def faulty(algorithm: str, key: Any) -> dict[str, str]:
    """Every way in which a good token is spoiled."""
    header, payload, signature = signed(algorithm, key).split(".")
    made, half = raw(signature), len(raw(signature)) // 2
    other = text(raw(header).replace(algorithm.encode(), b"none"))
    body = f"{header}.{payload}"
    spoiled = {
        "no signature": f"{body}.", "alg none": f"{other}.{payload}.{signature}",
        "alg none, no signature": f"{other}.{payload}.", "one byte less": f"{body}.{text(made[:-1])}",
        "one byte more": f"{body}.{text(made + bytes(1))}", "a zero before": f"{body}.{text(bytes(1) + made)}",
        "one bit flipped": f"{body}.{text(made[:-1] + bytes([made[-1] ^ 1]))}",
        "all zeros": f"{body}.{text(bytes(len(made)))}",
        "halves exchanged": f"{body}.{text(made[half:] + made[:half])}",
        "another payload": f"{header}.{text(b'{}')}.{signature}", "no payload": f"{header}..{signature}",
        "padding": f"{body}.{signature}==", "a space": f"{body}. {signature}", "a line end": f"{body}.{signature}\n",
        "two segments": body, "four segments": f"{body}.{signature}.", "doubled": f"{body}.{signature}" * 2,
        "another alphabet": f"{body}.{signature}".replace("-", "+").replace("_", "/") + "/",
        "not canonical": f"{body}.{signature[:-1]}{not_canonical(signature)}",
        "by another key": signed(algorithm, OTHER_RSA if key is RSA else key_for(algorithm)),
    }  # fmt: skip
    if algorithm in CURVES:
        r, s = int.from_bytes(made[:half]), int.from_bytes(made[half:])
        spoiled["DER"] = f"{header}.{payload}.{text(encode_dss_signature(r, s))}"
        spoiled["r twice"] = f"{header}.{payload}.{text(made[:half] * 2)}"
    return spoiled


def not_canonical(signature: str) -> str:
    """A last character that decodes to the same bytes; where there is none, one that is no base64url."""
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return last[last.index(signature[-1]) ^ 1] if len(signature) % 4 else "!"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_signature_is_taken_and_every_spoiled_one_refused(algorithm: str, record_property: Any) -> None:
    key = key_for(algorithm)
    assert accepts(algorithm, key, signed(algorithm, key))
    assert accepts(algorithm, key, signed(algorithm, key, b"")), "what is signed is not the reader's business"
    spoiled = faulty(algorithm, key)
    record_property("refused", len(spoiled))
    print(f"{algorithm}: 2 good ones taken, {len(spoiled)} spoiled ones refused")
    assert [name for name, token in spoiled.items() if accepts(algorithm, key, token)] == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_is_for_its_own_algorithm_only(algorithm: str) -> None:
    key = key_for(algorithm)
    for other in ALGORITHMS:
        same_kind = type(key_for(other)) is type(key) and (other in CURVES) == (algorithm in CURVES)
        if other == algorithm or not same_kind or (other in CURVES and CURVES[other] != CURVES[algorithm]):
            continue
        assert not accepts(algorithm, key, signed(other, key)), f"{other} with a key for {algorithm}"
