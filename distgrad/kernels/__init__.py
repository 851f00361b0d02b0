"""Kernels compiled by Numba, for what numpy does slowly: several passes over memory, or loops it has no function for.

Each stands beside a numpy kernel of an op that gives the same values within rounding: its oracle in the tests, and what
small arrays take. Invariant: `compiled`, which says who takes which, is light; nothing else here is imported before a
large array needs it.
"""
