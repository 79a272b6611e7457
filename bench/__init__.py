"""Measurements with their method. Not tests: nothing here passes or fails."""
