"""A certified OpenID provider of others, as an issuer that knows nothing of us."""
