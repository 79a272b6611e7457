"""Versions of the database of auth, oldest first (Alembic)."""
