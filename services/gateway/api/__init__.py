"""What the gateway answers over HTTP, one module for each kind of thing; `app.py` puts them together."""

from typing import Any


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document of the public API, made without anything to talk to."""
    from services.gateway import wiring  # wiring imports this package

    return wiring.openapi_document()
