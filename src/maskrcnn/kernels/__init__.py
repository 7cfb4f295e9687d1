"""Compiled inner loops (numba), each beside the module that gives it meaning."""
