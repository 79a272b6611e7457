"""The embedded Nomad-compatible agent: what the platform's Nomad adapter speaks to when no Nomad is there.

It runs real local processes and follows Nomad's real semantics for what the platform does or survives, quirks included
(docs: reference/nomad-verified.md; proof: tests/ports/agent_recordings). It is not a second Nomad.

Outside of this package only `EmbeddedAgent` and `AgentSettings` are used.
"""

from .server import AgentError, EmbeddedAgent
from .settings import AgentSettings

__all__ = ["AgentError", "AgentSettings", "EmbeddedAgent"]
