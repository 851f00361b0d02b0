"""Runs programs on numpy arrays."""
