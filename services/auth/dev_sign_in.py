"""The development issuer's device flow over HTTP: a command line begins it, a person decides it on a page.

The device's own asking comes to the token endpoint (`dev_issuer.py`).
"""

from authlib.oauth2.rfc6749 import errors as oauth
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from services.auth import dev_page
from services.auth.dev_devices import Devices
from services.auth.dev_forms import NO_STORE, form_of, oauth_refusal, user_named
from services.auth.dev_tokens import CLI
from shared.errors import Refused
from shared.ports import Clock


def add_to(app: FastAPI, devices: Devices, url: str, clock: Clock) -> None:
    """Add the routes."""
    routes = _Routes(devices, url, clock)
    app.add_api_route("/device_authorization", routes.begin, methods=["POST"], response_model=None)
    app.add_api_route("/device", routes.page, methods=["GET"], response_model=None)
    app.add_api_route("/device", routes.answer, methods=["POST"], response_model=None)


class _Routes:
    def __init__(self, devices: Devices, url: str, clock: Clock) -> None:
        self._devices = devices
        self._url = url
        self._clock = clock

    async def begin(self, request: Request) -> Response:
        """A command line begins a sign-in (RFC 8628, 3.1 and 3.2)."""
        form = await form_of(request)
        if form.get("client_id") != CLI:
            return oauth_refusal(oauth.InvalidClientError("there is no such public client", status_code=401))
        begun = self._devices.begin(CLI, frozenset(form.get("scope", "").split()), self._clock())
        page = f"{self._url.rstrip('/')}/device"
        told = {
            "device_code": begun.device_code, "user_code": begun.user_code, "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={begun.user_code}", "interval": begun.interval_s,
            "expires_in": int((begun.ends_at - self._clock()).total_seconds()),
        }  # fmt: skip
        return JSONResponse(told, headers=NO_STORE)

    async def page(self, user_code: str = "") -> Response:
        """Where a person looks at the code and chooses whom to be."""
        begun = self._devices.waiting(user_code, self._clock())
        if begun is None:
            wrong = "No sign-in waits under this code: it is mistyped, too old or decided already." if user_code else ""
            return HTMLResponse(dev_page.ask_for_code(wrong), 404 if user_code else 200, dev_page.HEADERS)
        return HTMLResponse(dev_page.choose(begun.user_code, begun.client), 200, dev_page.HEADERS)

    async def answer(self, request: Request) -> Response:
        """The person's answer. A form on somebody else's page cannot give it (`Origin`)."""
        origin, own = request.headers.get("origin"), f"http://{request.headers.get('host', '')}"
        if origin not in (None, own):
            raise Refused("this form was not sent from this issuer's own page", code="invalid_request")
        form = await form_of(request)
        begun, user = self._devices.waiting(form.get("user_code", ""), self._clock()), user_named(form.get("user", ""))
        if begun is None:
            return HTMLResponse(dev_page.ask_for_code("No sign-in waits under this code."), 404, dev_page.HEADERS)
        if form.get("answer") == "refuse":
            self._devices.decide(begun, None)
            return HTMLResponse(dev_page.done("Refused"), 200, dev_page.HEADERS)
        if user is None or form.get("answer") != "allow":
            return HTMLResponse(dev_page.choose(begun.user_code, begun.client), 422, dev_page.HEADERS)
        self._devices.decide(begun, user.user)
        return HTMLResponse(dev_page.done(f"Signed in as {user.name}"), 200, dev_page.HEADERS)
