"""COBS for the Notecard's binary store: every byte XOR 0x0A, ended by a newline (note-c:n_cobs.c)."""

from node import loops


def max_length(length):
    """The most bytes that `length` bytes take when encoded, newline included."""
    return length + length // 254 + 2


def encode(data, out):
    """Encode `data` into the preallocated `out`; returns the length, newline included."""
    if len(out) < max_length(len(data)):
        raise ValueError("cobs: %d bytes of room, %d needed" % (len(out), max_length(len(data))))
    return loops.cobs(data, len(data), out)
