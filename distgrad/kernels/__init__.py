"""Loops over memory compiled by Numba, and which arrays they are used for."""
