"""The vectors that a model computes on: of ulab on CircuitPython, of numpy on a PC, or plain arrays."""

try:
    from node.vectors_numpy import *  # noqa: F403
except ImportError:  # MicroPython without ulab
    from node.vectors_plain import *  # noqa: F403
