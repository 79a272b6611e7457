"""The scheduler's database, version by version."""
