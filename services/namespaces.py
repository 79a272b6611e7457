"""`serai-platform namespaces SITE`: what a site's operator makes at their Nomad for us, printed or made.

Namespaces for the VOs that the site serves, and the two policies. Tokens are secrets: they are never made here, only
the commands for them are printed. docs/sites.md is the handbook.
"""

import os
import shlex
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from services.scheduler.settings import SchedulerSettings
from shared.adapters.nomad.operator import NomadOperator
from shared.adapters.nomad.policies import Role, policy
from shared.errors import Misconfigured, SeraiError
from shared.namespaces import namespace_of
from shared.processes.settings import read_file, read_settings

_ABOUT: Final = {Role.SCHEDULER: "Serai: put and stop attempts", Role.MONITOR: "Serai: watch attempts"}

Vos = Annotated[list[str] | None, typer.Option("--vo", help="A VO that the site serves, if no sites file says so.")]
Site = Annotated[str, typer.Argument(help="Name of the site, as in the file of SERAI_SITES.")]
SitesFile = Annotated[Path | None, typer.Option("--sites", envvar="SERAI_SITES", help="File of clusters and sites.")]
Create = Annotated[
    bool, typer.Option("--create", help="Make them now, at NOMAD_ADDR with NOMAD_TOKEN (NOMAD_CACERT for its TLS).")
]
Older = Annotated[
    bool, typer.Option("--before-1-11-2", help="Print for Nomad before 1.11.2: `submit-job`. (`--create` asks it.)")
]


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def namespaces(
        site: Site, vo: Vos = None, sites: SitesFile = None, create: Create = False, before_1_11_2: Older = False
    ) -> None:
        """Print what a site's operator makes at their Nomad for us: namespaces, policies, tokens; or make it."""
        try:
            made = wanted(vo or vos_of(site, sites), _named())
            if create:
                _create(made)
            else:
                print(script(site, made, before_1_11_2=before_1_11_2), end="")
        except SeraiError as error:
            typer.echo(f"serai-platform: {error.what}", err=True)
            raise typer.Exit(78 if isinstance(error, Misconfigured) else 1) from None


def wanted(vos: Sequence[str], named: Mapping[str, str]) -> dict[str, str]:
    """Namespace by VO."""
    return {vo: namespace_of(vo, named) for vo in vos}


def vos_of(site: str, file: Path | None) -> Sequence[str]:
    """The VOs of a site in the file. Raises Misconfigured."""
    if file is None:
        raise Misconfigured(f"which VOs does {site} serve? Say --vo NAME for each, or name the file: --sites FILE")
    try:
        rows = yaml.safe_load(file.read_text(encoding="utf-8"))["sites"]
        found = {str(row["name"]): [str(vo) for vo in row.get("vos") or ()] for row in rows}
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read {file}: {error}") from error
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise Misconfigured(f"{file} is no file of clusters and sites, see docs/processes.md") from error
    if site not in found:
        raise Misconfigured(f"{file} names no site {site!r}; it has {', '.join(sorted(found))}")
    if not found[site]:
        raise Misconfigured(f"{file} leaves the VOs of {site} to Consul: say --vo NAME for each")
    return found[site]


def script(site: str, made: Mapping[str, str], *, before_1_11_2: bool = False) -> str:
    """The operator's commands, as a shell script."""
    lines = [f"# For {site}: run with a management token (NOMAD_ADDR, NOMAD_TOKEN, NOMAD_CACERT)."]
    for vo, namespace in made.items():
        lines += [f"nomad namespace apply -description {shlex.quote(_description(vo))} {namespace}"]
    for role, about in _ABOUT.items():
        rules = policy(role, tuple(made.values()), before_1_11_2=before_1_11_2)
        lines += ["", f"nomad acl policy apply -description {shlex.quote(about)} {role} - <<'POLICY'", rules + "POLICY"]
    lines += [
        "",
        "# Give each service the SecretID that is printed, in a file of its own: `token_file` in the sites file.",
    ]
    lines += [f"nomad acl token create -name {role} -type client -policy {role}" for role in Role]
    return "\n".join(lines) + "\n"


def _description(vo: str) -> str:
    return f"Serai: jobs of the VO {vo}"


def _create(made: Mapping[str, str]) -> None:
    address = os.environ.get("NOMAD_ADDR", "http://127.0.0.1:4646")
    with NomadOperator(address, os.environ.get("NOMAD_TOKEN", ""), _context()) as operator:
        before = operator.namespaces()
        for vo, namespace in made.items():
            if namespace not in before:
                operator.make_namespace(namespace, _description(vo))
            print(f"namespace {namespace} ({vo}): {'there before' if namespace in before else 'made'}")
        if not operator.has_acls():
            print("no policies: ACLs are not enabled there")
            return
        for role, about in _ABOUT.items():
            operator.apply_policy(role, operator.policy_for(role, tuple(made.values())), about)
            print(f"policy {role}: as it should be; a token: nomad acl token create -name {role} -policy {role}")


def _context() -> ssl.SSLContext | None:
    file = os.environ.get("NOMAD_CACERT")
    try:
        return ssl.create_default_context(cafile=file) if file else None
    except OSError as error:
        raise Misconfigured(f"NOMAD_CACERT={file}: {error}") from error


def _named() -> Mapping[str, str]:
    """Namespaces that VOs had before, as the scheduler is told."""
    told: dict[str, Any] = read_file().get("scheduler", {})
    return read_settings(SchedulerSettings, told, service_token="not needed").namespaces
