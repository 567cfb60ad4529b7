"""The vectors that a model computes on: of ulab on CircuitPython, of numpy on a PC, or plain arrays."""


def _has(module):
    try:
        __import__(module)
        return True
    except ImportError:
        return False


if _has("ulab") or _has("numpy"):  # asked first: a module that fails to load leaves 15 KB behind on MicroPython
    from node.vectors_numpy import *  # noqa: F403
else:
    from node.vectors_plain import *  # noqa: F403
