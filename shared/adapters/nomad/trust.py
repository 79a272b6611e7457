"""TLS towards a cluster: one context for both HTTP clients. Verification is never off.

`ssl` is the only I/O here (it reads the files named in the settings).
"""

import ssl

from shared.adapters.nomad.settings import ClusterSettings
from shared.errors import Misconfigured


def context_of(settings: ClusterSettings) -> ssl.SSLContext:
    """The context for a cluster: its own authorities only, where it names some. Raises Misconfigured."""
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
        if settings.client_certificate_file:
            key = str(settings.client_key_file) if settings.client_key_file else None
            context.load_cert_chain(str(settings.client_certificate_file), key)
    except OSError as wrong:
        raise Misconfigured(f"cluster {settings.name}: cannot use its TLS files: {wrong}", code="nomad_tls") from wrong
    return context
