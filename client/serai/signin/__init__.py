"""Signing in and staying signed in: which issuers there are, their device flow, where tokens are kept and renewed.

`bearers.py` is the way in for a connection: it says which access token goes out with a request. Nothing here knows the
command line; nothing here tries again by itself, except the device flow, whose protocol is to ask again.
"""
