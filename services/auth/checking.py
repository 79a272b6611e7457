"""What an issuer offers and what its entry lacks, in words for operators: `serai-platform issuers list | check`.

`report` is pure; `check` reads the issuer's discovery document and keys, with the same client as the service. Called
by `services/__main__.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2 as httpx

from services.auth.issuer_http import IssuerHttp
from services.auth.issuers import Issuer, Profile, is_loopback
from services.auth.keys import examined
from shared.errors import Misconfigured, SeraiError, Unavailable

_USEFUL_SCOPES: Final = (
    "openid", "profile", "offline_access", "eduperson_entitlement", "entitlements", "voperson_id",
    "wlcg.groups",
)  # fmt: skip
_ENDPOINTS: Final = (
    "jwks_uri", "userinfo_endpoint", "introspection_endpoint", "device_authorization_endpoint", "token_endpoint",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Offer:
    """What an issuer was found to publish; `keys` is None when its key set could not be read, and `trouble` why."""

    discovery: Mapping[str, Any]
    keys: Mapping[str, Any] | None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """`said` line by line; `problems` is empty when tokens of this issuer can be verified as the settings stand."""

    said: tuple[str, ...]
    problems: tuple[str, ...]


def summary(issuers: Sequence[Issuer]) -> list[str]:
    """One line for each trusted issuer."""
    return [
        f"{each.label}: {each.issuer}  profile {each.profile}, claims from {each.claims_from}, "
        f"VOs {', '.join(each.vos) or 'none'}"
        for each in issuers
    ]


async def check(url: str, issuers: Sequence[Issuer], transport: httpx.AsyncBaseTransport | None = None) -> Report:
    """Read what the issuer at `url` publishes and hold it against its entry. Raises Unavailable, Misconfigured."""
    entry = next((each for each in issuers if each.issuer == url), None)
    near = next((each for each in issuers if each.issuer.rstrip("/") == url.rstrip("/")), None)
    http = IssuerHttp(entry or _unknown(url, near), transport)
    try:
        return report(url, entry, await _offer(http, entry), issuers)
    finally:
        await http.close()


async def _offer(http: IssuerHttp, entry: Issuer | None) -> Offer:
    configured = entry.jwks_uri if entry else None
    try:
        discovery = await http.discover()
    except Unavailable as error:
        if configured is None:
            raise
        discovery = {"error": error.what}
    try:
        return Offer(discovery, await http.get(await http.endpoint(configured, "jwks_uri")))
    except Unavailable as error:
        return Offer(discovery, None, error.what)


def report(url: str, entry: Issuer | None, offer: Offer, issuers: Sequence[Issuer]) -> Report:
    """What it offers and what is missing. Pure."""
    judged = entry or _unknown(url)
    said = [f"{url}: {'trusted as ' + judged.label if entry else 'not among the trusted issuers'}"]
    said += [f"  {name}: {offer.discovery[name]}" for name in _ENDPOINTS if name in offer.discovery]
    scopes = offer.discovery.get("scopes_supported")
    if isinstance(scopes, list):
        said.append(f"  scopes that matter here: {', '.join(s for s in _USEFUL_SCOPES if s in scopes) or 'none'}")
    said.append(f"  {_sign_in(offer.discovery)}")
    key_lines, problems = _keys(offer, judged)
    said += key_lines
    if entry is None:
        problems += _not_trusted(url, issuers)
        said += _suggestion(url, offer)
    else:
        problems += _endpoints(entry, offer)
    return Report(tuple(said), tuple(problems))


def _sign_in(discovery: Mapping[str, Any]) -> str:
    """Whether people can sign in there from a command line."""
    if "device_authorization_endpoint" not in discovery:
        return "`serai login`: no, it offers no device flow; people bring their tokens (oidc-agent, SERAI_TOKEN)"
    return "`serai login`: yes, with a public client there that has the device grant, named in SERAI_GATEWAY_ISSUERS"


def _keys(offer: Offer, issuer: Issuer) -> tuple[list[str], list[str]]:
    if offer.keys is None:
        return [], [f"its keys cannot be read: {offer.trouble}"]
    try:
        found, left_out = examined(offer.keys, issuer)
    except SeraiError as error:
        return [], [error.what]
    lines = [f"  key {kid}: {', '.join(sorted(key.algorithms))}" for kid, key in sorted(found.items())]
    lines += [f"  key {kid}: left out, {why}" for kid, why in left_out]
    if found:
        return lines, []
    there = ", ".join(_algorithms(offer, _unknown(issuer.issuer))) or "nothing that is accepted here"
    mine = ", ".join(issuer.algorithms)
    return lines, [f"none of its keys can be used with {mine}; they are for {there}: see `algorithms`"]


def _endpoints(entry: Issuer, offer: Offer) -> list[str]:
    """Endpoints that the entry needs and that neither it nor the issuer names."""
    needed = {"userinfo": ("userinfo_uri", "userinfo_endpoint"),
              "introspection": ("introspection_uri", "introspection_endpoint")}  # fmt: skip
    if entry.claims_from == "token":
        return []
    setting, name = needed[entry.claims_from]
    if getattr(entry, setting) is not None:
        return []
    address = offer.discovery.get(name)
    if not isinstance(address, str):
        return [f"it names no `{name}`: set `{setting}`, or another `claims_from`"]
    if urlsplit(address)[:2] != urlsplit(entry.issuer)[:2]:
        return [f"its `{name}` {address} is on another host: set `{setting}` to it if that is right"]
    return []


def _not_trusted(url: str, issuers: Sequence[Issuer]) -> list[str]:
    near = [each.issuer for each in issuers if each.issuer.rstrip("/") == url.rstrip("/")]
    if near:
        return [f"the settings trust {near[0]!r}, which is another string: write it exactly as its tokens' `iss`"]
    return ["it is not trusted: add an entry (docs/issuers.md); at least `audiences`, `vos` and what names them"]


def _suggestion(url: str, offer: Offer) -> list[str]:
    profile, unknown = _likely_profile(url), _unknown(url)
    lines = ["an entry to begin with:", f"  - issuer: {url}", f"    profile: {profile}"]
    if profile == "egi":
        lines += ["    accept_shared_audience: true", "    clients: [<the clients whose tokens you accept>]"]
    else:
        lines.append("    audiences: [<what its tokens for this platform have in `aud`>]")
    if unknown.development:
        lines.append("    development: true")
    algorithms = _algorithms(offer, unknown)
    if algorithms and profile != "egi":
        lines.append(f"    algorithms: [{', '.join(algorithms)}]")
    return [
        *lines,
        "    speakers: [{namespace: <urn:...>, authority: <...>}]",
        "    vos: [<the VOs that it may speak for>]",
    ]


def _algorithms(offer: Offer, issuer: Issuer) -> list[str]:
    """Those of the keys that it publishes now."""
    try:
        found, _ = examined(offer.keys or {}, issuer)
    except SeraiError:
        return []
    return sorted({algorithm for key in found.values() for algorithm in key.algorithms})


def _likely_profile(url: str) -> Profile:
    host = urlsplit(url).hostname or ""
    if host == "egi.eu" or host.endswith(".egi.eu"):
        return "egi"
    if "/realms/" in url:
        return "keycloak"
    return "iam" if url.endswith("/") else "rfc9068"


def _unknown(url: str, near: Issuer | None = None) -> Issuer:
    """An entry that is enough to look at an issuer. Raises Misconfigured for what is no address of one.

    `near`: an entry that differs by a slash only, whose CA is good for it too.
    """
    try:
        development, ca = is_loopback(urlsplit(url).hostname or ""), near.ca_file if near else None
        return Issuer(issuer=url, audiences=("none",), development=development, ca_file=ca, algorithms=(
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519",
        ))  # fmt: skip
    except ValueError as error:
        raise Misconfigured(f"{url!r} is not the address of an issuer: give its plain https address") from error
