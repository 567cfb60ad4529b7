"""COBS for the Notecard's binary store: every byte XOR 0x0A, ended by a newline (note-c:n_cobs.c)."""

_END = 0x0A


def max_length(length):
    """The most bytes that `length` bytes take when encoded, newline included."""
    return length + length // 254 + 2


def encode(data, out):
    """Encode `data` into the preallocated `out`; returns the length, newline included."""
    if len(out) < max_length(len(data)):
        raise ValueError("cobs: %d bytes of room, %d needed" % (len(out), max_length(len(data))))
    code = 1
    code_at = 0
    at = 1
    for byte in data:
        if byte:
            out[at] = byte ^ _END
            at += 1
            code += 1
            if code != 0xFF:
                continue
        out[code_at] = code ^ _END
        code = 1
        code_at = at
        at += 1
    out[code_at] = code ^ _END
    out[at] = _END
    return at + 1
