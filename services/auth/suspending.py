"""What a suspension must say to hold, and for how long it holds. Pure; `admin_api.py` writes it down."""

from datetime import datetime, timedelta
from typing import Annotated, Final, Self

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError, model_validator

from shared.contracts.commands import Principal
from shared.contracts.suspensions import Kind, Suspension
from shared.errors import Refused
from shared.job import ONE_LINE, Value, VoName

LONGEST_S: Final = 10 * 365 * 86_400
_Name = Annotated[str, StringConstraints(max_length=512, pattern=r"^[\x20-\x7e]*$")]
_NEEDED: Final[dict[Kind, frozenset[str]]] = {
    "subject": frozenset({"issuer", "value"}), "client": frozenset({"issuer", "value"}),
    "token": frozenset({"issuer", "value"}), "vo": frozenset({"vo"}),
    "membership": frozenset({"issuer", "value", "vo"}),
}  # fmt: skip


class NewSuspension(Value):
    """As an administrator asks for it. Without `until` and `for_s` it holds until it is lifted."""

    kind: Kind
    issuer: _Name = ""
    value: _Name = ""
    vo: VoName | None = None
    reason: Annotated[str, StringConstraints(pattern=ONE_LINE, min_length=3, max_length=500)]
    until: AwareDatetime | None = None
    for_s: Annotated[float, Field(gt=0, le=LONGEST_S)] | None = None
    stop_running: bool = False

    @model_validator(mode="after")
    def _says_whom(self) -> Self:
        given = {name for name in ("issuer", "value", "vo") if getattr(self, name)}
        needed = _NEEDED[self.kind]
        if given != needed:
            raise ValueError(f"a suspension of kind `{self.kind}` names exactly: {', '.join(sorted(needed))}")
        if self.until is not None and self.for_s is not None:
            raise ValueError("give `until` or `for_s`, not both")
        return self


def read(raw: bytes) -> NewSuspension:
    """A suspension as it was sent. Raises Refused (`invalid_request`)."""
    try:
        return NewSuspension.model_validate_json(raw[:16_384])
    except ValidationError as error:
        words = "; ".join(f"{'/'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:10])
        raise Refused(f"the suspension is not valid: {words}"[:1_000], code="invalid_request") from error


def made(asked: NewSuspension, id: str, now: datetime, by: Principal) -> Suspension:
    """The suspension. Raises Refused for one that is over already, or that would lock out who makes it."""
    until = asked.until if asked.for_s is None else now + timedelta(seconds=asked.for_s)
    if until is not None and until <= now:
        raise Refused("`until` is in the past: nothing would be suspended", code="invalid_request")
    if asked.kind == "subject" and (asked.issuer, asked.value) == (by.issuer, by.subject):
        raise Refused("you would lock yourself out: ask another administrator", code="invalid_request")
    return Suspension(
        id=id, kind=asked.kind, issuer=asked.issuer, value=asked.value, vo=asked.vo or "", reason=asked.reason,
        until=until, stop_running=asked.stop_running,
    )  # fmt: skip
