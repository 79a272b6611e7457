"""The HTTP edge that stands before every listening service: what is refused before anybody looks at a request.

`wire.py` bounds sizes and times on the connection, `guard.py` looks at what was asked before the service does, and
`heads.py` decides for both. `shared.runtime.serving` puts them in front of whatever it serves.
"""

from shared.runtime.edge.settings import EdgeSettings

__all__ = ["EdgeSettings"]
