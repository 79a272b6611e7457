"""oidc-provider (panva's, OpenID-certified, MIT) as an outside issuer: installed, started, and a person at its pages.

It comes from npm, by name, into a folder of its own under the user's cache; without node or npm its tests are skipped.
"""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import httpx2
import pytest
import trustme
import yaml
from joserfc.jwk import ECKey

from services.embedded.folder import next_free_port

PACKAGE: Final = "oidc-provider"
VERSION: Final = "9.13.3"
INSTALL_S: Final = 120.0
START_S: Final = 30.0
SECRET: Final = "a-robots-secret"
NAMESPACE: Final = "urn:geant:outside.example"
AUTHORITY: Final = "outside.example"
AUDIENCE: Final = "https://serai.example"
CLIMATE: Final = "vo.climate.example"
ACCOUNTS: Final[Mapping[str, list[str]]] = {
    "carla": [f"{NAMESPACE}:group:{CLIMATE}:role=member#{AUTHORITY}"],
    "otto": [f"{NAMESPACE}:group:{CLIMATE}:role=observer#{AUTHORITY}"],
    "nora": [],
    "robot": [f"{NAMESPACE}:group:{CLIMATE}:role=member#{AUTHORITY}"],
}
_HERE: Final = Path(__file__).parent


@dataclass
class Outside:
    """The running issuer; `ca` is the PEM file that its TLS needs."""

    url: str
    ca: Path
    folder: Path
    keys: list[dict[str, Any]] = field(default_factory=list)

    def http(self) -> httpx2.AsyncClient:
        """A client that trusts its certificate."""
        return httpx2.AsyncClient(verify=ssl.create_default_context(cafile=str(self.ca)), timeout=15, trust_env=False)

    async def rotate(self, *, keep: bool) -> None:
        """Sign with a new key from now on; `keep` = go on publishing the old ones."""
        self.keys = [new_key(len(self.keys)), *(self.keys if keep else [])]
        async with self.http() as http:
            assert (await http.post(f"{self.url}/-/keys", json={"keys": self.keys})).status_code == 204

    async def robots_token(self, resource: str | None = AUDIENCE, scope: str = "openid") -> str:
        """An access token of the service account: a JWT for `resource`, opaque without one."""
        form = {"grant_type": "client_credentials", "scope": scope} | ({"resource": resource} if resource else {})
        async with self.http() as http:
            answer = await http.post(f"{self.url}/token", data=form, auth=("robot", SECRET))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def entry(self, **changed: Any) -> dict[str, Any]:
        """How the platform trusts it: one entry of `SERAI_AUTH_ISSUERS_FILE`."""
        return {
            "issuer": self.url, "name": "Outside", "profile": "rfc9068", "audiences": [AUDIENCE],
            "ca_file": str(self.ca),
            "algorithms": ["ES256"], "speakers": [{"namespace": NAMESPACE, "authority": AUTHORITY}], "vos": [CLIMATE],
        } | changed  # fmt: skip

    def trusted(self, **changed: Any) -> dict[str, str]:
        """The environment of a platform that trusts it and names it to people."""
        file = self.folder / "issuers.yaml"
        file.write_text(yaml.safe_dump({"issuers": [self.entry(**changed)]}))
        named = {"issuer": self.url, "name": "Outside", "client_id": "serai-cli", "audience": AUDIENCE}
        return {"SERAI_AUTH_ISSUERS_FILE": str(file), "SERAI_GATEWAY_ISSUERS": json.dumps([named])}


def new_key(number: int) -> dict[str, Any]:
    """A private signing key."""
    key = ECKey.generate_key("P-256")
    return {**key.as_dict(private=True), "kid": f"key-{number}-{key.thumbprint()[:8]}", "use": "sig", "alg": "ES256"}


@asynccontextmanager
async def outside(folder: Path, *, life_s: int = 300) -> AsyncIterator[Outside]:
    """The issuer, listening. Skips the test where node, npm or the package cannot be had."""
    module = installed()
    port, ca, keys = next_free_port(17_600), trustme.CA(), [new_key(0)]
    certificate = ca.issue_cert("127.0.0.1")
    files = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
    ca.cert_pem.write_to_path(files["ca"])
    certificate.cert_chain_pems[0].write_to_path(files["cert"])
    certificate.private_key_pem.write_to_path(files["key"])
    settings = {
        "port": port, "key": str(files["key"]), "cert": str(files["cert"]), "keys": keys, "accounts": ACCOUNTS,
        "secret": SECRET, "life": life_s,
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        "node", str(_HERE / "server.mjs"), str(module), json.dumps(settings),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stderr is not None
        async with asyncio.timeout(START_S):
            line = await process.stdout.readline()
        assert line.startswith(b"listening"), (await process.stderr.read()).decode()
        yield Outside(f"https://127.0.0.1:{port}", files["ca"], folder, keys)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def installed() -> Path:
    """Its main file, installed at the first call on a machine. Skips the test where that cannot be done."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not on PATH: no oidc-provider")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "serai-tests"
    home = cache / f"{PACKAGE}-{VERSION}"
    if not home.exists():
        _install(cache, home)
    return home / "node_modules" / PACKAGE / "lib" / "index.js"


def _install(cache: Path, home: Path) -> None:
    """Into a folder beside it, which then gets its name: whoever installs at the same time does no harm."""
    cache.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.mkdtemp(dir=cache)
    words = (
        "npm", "install", "--prefix", scratch, "--no-save", "--no-package-lock", "--no-audit", "--no-fund",
        "--ignore-scripts", f"{PACKAGE}@{VERSION}",
    )  # fmt: skip
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        if told.returncode:
            pytest.skip(f"npm cannot bring {PACKAGE}: {(told.stdout + told.stderr)[-300:]}")
        if not home.exists():
            shutil.move(scratch, home)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not bring {PACKAGE} within {INSTALL_S:g} s")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Form(HTMLParser):
    """The first form of a page: where it goes, and its inputs with what stands in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.inputs: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = said.get("action") or ""
        if tag == "input" and said.get("name") and said.get("type") != "submit":
            self.inputs[str(said["name"])] = said.get("value") or ""


class Browser:
    """A person who signs in at the issuer's pages: fills in each form that comes, and says yes."""

    def __init__(self, issuer: Outside, user: str) -> None:
        self._typed = {"login": user, "password": "anything"}
        self._http = issuer.http()
        self._http.follow_redirects = True

    async def allow(self, link: str) -> str:
        """Open the link and go on until no form is left; the text of the last page."""
        async with self._http:
            page = await self._http.get(link)
            for _ in range(8):
                form = _Form(page.text)
                if form.action is None:
                    return page.text
                fields = {name: self._typed.get(name, value) for name, value in form.inputs.items()}
                page = await self._http.post(urljoin(str(page.url), form.action), data=fields)
        raise AssertionError(f"the issuer asks without end: {page.text[:500]}")
