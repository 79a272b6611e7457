"""Versions of the gateway's database, oldest first (Alembic)."""
