"""The monitor's migrations."""
