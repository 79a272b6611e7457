"""TLS towards a cluster: one context for both HTTP clients. Verification is never off.

`ssl` is the only I/O here (it reads the files named in the settings).
"""

import ssl

from shared.adapters.nomad.settings import ClusterSettings
from shared.errors import Misconfigured
from shared.runtime.tls import trusting_nobody


def context_of(settings: ClusterSettings) -> ssl.SSLContext:
    """The context for a cluster: its own authorities only, where it names some. Raises Misconfigured."""
    if settings.address.startswith("http://") and not settings.ca_file and not settings.client_certificate_file:
        return trusting_nobody()
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
        if settings.client_certificate_file:
            key = str(settings.client_key_file) if settings.client_key_file else None
            context.load_cert_chain(str(settings.client_certificate_file), key)
    except OSError as wrong:
        raise Misconfigured(f"cluster {settings.name}: cannot use its TLS files: {wrong}", code="nomad_tls") from wrong
    return context


_MENDS = {
    "CERTIFICATE_VERIFY_FAILED": "mend ca_file or tls_server_name",
    "WRONG_VERSION_NUMBER": "nobody speaks TLS there: the address begins with http://, or is another port",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the cluster wants to see a client certificate: client_certificate_file",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the cluster does not take our client certificate: client_certificate_file",
    "SSLV3_ALERT_CERTIFICATE_REQUIRED": "the cluster wants to see a client certificate: client_certificate_file",
    "TLSV1_ALERT_UNKNOWN_CA": "the cluster does not know the authority of our client certificate",
}


def trouble(error: BaseException | None) -> str:
    """What to mend where the bottom of an error is that one side does not trust the other; else empty."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and (mend := _MENDS.get(str(getattr(error, "reason", "")))):
            return mend
        error = error.__cause__ or error.__context__
    return ""
