"""TLS of our HTTP clients towards addresses that have none. Verification is never off."""

import ssl


def trusting_nobody() -> ssl.SSLContext:
    """For a client that speaks plain HTTP only; an `https` address is refused by it, whoever signed its certificate.

    To read the authorities that the machine trusts, as a client does by itself, takes 60 ms of a core.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
