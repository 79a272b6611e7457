"""Which public keys are too weak to believe. Pure; called by `keys.py` for every key of an issuer."""

from typing import Final

LEAST_RSA_BITS: Final = 2048
MOST_RSA_BITS: Final = 8192
"""Beyond this a verification costs milliseconds: a way to keep us busy."""
_PRIMES: Final = (
    11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
)  # fmt: skip
"""Primes p for which 65537 does not generate all residues mod p, so that membership tells something."""


def rsa_weakness(modulus: int, exponent: int) -> str:
    """Why an RSA key is refused, empty when it is not: size, exponent (FIPS 186-5), ROCA (CVE-2017-15361)."""
    if not LEAST_RSA_BITS <= modulus.bit_length() <= MOST_RSA_BITS:
        return f"RSA of {modulus.bit_length()} bits; {LEAST_RSA_BITS} to {MOST_RSA_BITS} are accepted"
    if exponent < 65_537 or exponent.bit_length() > 256 or exponent % 2 == 0:
        return "RSA exponent out of range"
    if all(modulus % prime in _SUBGROUPS[prime] for prime in _PRIMES):
        return "RSA key of the ROCA kind"
    return ""


def _subgroup(prime: int) -> frozenset[int]:
    powers, value = set(), 1
    while value not in powers:
        powers.add(value)
        value = value * 65_537 % prime
    return frozenset(powers)


_SUBGROUPS: Final = {prime: _subgroup(prime) for prime in _PRIMES}
