"""What the development issuer reads of forms and answers to bad ones. Called by its routes."""

from typing import Final
from urllib.parse import parse_qsl

from authlib.oauth2.rfc6749 import errors as oauth
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from services.auth.demo_users import DEMO_USERS, DemoUser
from shared.errors import Refused

NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


async def form_of(request: Request) -> dict[str, str]:
    """An urlencoded form of at most 8 kB and 20 fields, none of them twice. Raises Refused."""
    body = await request.body()
    if len(body) > 8_192:
        raise Refused("the form is larger than 8 kB", code="too_large")
    try:
        pairs = parse_qsl(body.decode("utf-8", errors="replace"), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise Refused("the form has more than 20 fields", code="invalid_request") from error
    if len(dict(pairs)) != len(pairs):
        raise Refused("a field stands there twice", code="invalid_request")
    return dict(pairs)


def oauth_refusal(error: oauth.OAuth2Error) -> Response:
    """An error of the token endpoint and its like (RFC 6749, 5.2)."""
    headers = {**dict(error.get_headers()), **NO_STORE}
    return JSONResponse(dict(error.get_body()), status_code=error.status_code, headers=headers)


def user_named(name: str) -> DemoUser | None:
    """The demo user, None when there is none of this name."""
    return next((user for user in DEMO_USERS if user.user == name), None)
