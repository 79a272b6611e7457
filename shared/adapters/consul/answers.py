"""What an answer of Consul that is not a result means for us. Pure.

Codes: `consul_away` our own agent does not answer; `consul_silent` a query was not answered in time, by whom is not
known; `consul_datacenter` the agent answers and the datacenter behind it does not; `consul_token`, `consul_tls` and
`consul_request` an operator has to act; `consul_unclear` no answer that can be read.
"""

from typing import Final

from shared.errors import Misconfigured, SeraiError, Unavailable

AWAY: Final = "consul_away"
SILENT: Final = "consul_silent"
DATACENTER: Final = "consul_datacenter"
TOKEN: Final = "consul_token"


def error_of(status: int, text: str, where: str) -> SeraiError:
    """The error for a status of 400 and above, with Consul's own words."""
    said = f"{where}: Consul answered {status}: {one_line(text)}"
    if status in (401, 403):
        return Misconfigured(
            f"{said} (mend the ACL token of the setting `token`: docs/consul.md has its policy)", code=TOKEN
        )
    if status == 429 or status in (502, 503, 504):
        return Unavailable(said, code="consul_unclear")
    if status >= 500:
        return Unavailable(said, code=DATACENTER)
    return Misconfigured(said, code="consul_request")


def one_line(text: str, most: int = 200) -> str:
    """Somebody else's words made fit for a log line or a message: printable, one line, short."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: most * 4]).split())
    return words if len(words) <= most else words[: most - 3] + "..."
