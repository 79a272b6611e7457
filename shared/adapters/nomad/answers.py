"""What Nomad's error answers mean. Pure: (status, text) -> error of `shared.errors`.

Nomad speaks mostly in HTTP 500 with plain text (reference/nomad-verified.md, b, g, h): the text decides.
"""

from shared.errors import Misconfigured, NotFound, OutcomeUnknown, Refused, SeraiError, Unavailable

_NOT_NOW = ("No cluster leader", "Not ready to serve consistent reads", "No path to region")
_TOKEN = ("ACL token expired", "ACL token not found", "failed to parse signed token", "Permission denied")
_PLAIN = "HTTP request to an HTTPS server"
_TAKEN = ("job already exists", "cannot update job from type")
_PLACE = ("nonexistent namespace", "nonexistent node pool")


def error_of(status: int, text: str, where: str, *, wrote: bool, needs: str = "") -> SeraiError:
    """The error that an answer other than 2xx stands for; `where` begins the sentence for people.

    `needs` is the capability that the call takes. After a write an unclear answer is OutcomeUnknown: Nomad also says
    500 when leadership is lost on the way.
    """
    said = f"{where}: HTTP {status}: {text.strip()[:500]}"
    if status in (401, 403) or (status == 500 and _has(text, _TOKEN)):
        lack = f"the token is unknown there, or lacks {needs}; docs/sites.md has the policies"
        mend = lack if needs else "mend the Nomad token"
        return Misconfigured(f"{said} ({mend})", code="nomad_token")
    if status == 400 and _PLAIN in text:
        return Misconfigured(f"{said} (the address begins with https://)", code="nomad_tls")
    if _has(text, _PLACE):
        return Misconfigured(f"{said} (make it at the site, or mend the site's settings)", code="nomad_namespace")
    if status == 404:
        return NotFound(said, code="nomad_not_found")
    if status == 429 or _has(text, _NOT_NOW):
        return Unavailable(said, code="nomad_unavailable")
    if 400 <= status < 500:
        return Refused(said, code="nomad_refused")
    return OutcomeUnknown(said, code="nomad_unclear") if wrote else Unavailable(said, code="nomad_unavailable")


def says_taken(status: int, text: str) -> bool:
    """The id is in use: a register with EnforceIndex 0 lost (the second text: to a job of another type)."""
    return status == 500 and _has(text, _TAKEN)


def _has(text: str, marks: tuple[str, ...]) -> bool:
    return any(mark in text for mark in marks)
