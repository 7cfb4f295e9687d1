"""The signal stack of the calling thread, as Linux tells it."""

from __future__ import annotations

import ctypes


class _Stack(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def signal_stack() -> tuple[int | None, int]:
    """Address and bytes."""
    stack = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.pointer, stack.size
