"""The twin of loops_plain in machine code, for runtimes whose compiler knows viper.

Where it does not, importing this fails (node.loops). A viper int has the width of the machine word: with int16 counts
and 4096 samples no sum passes 31 bits. ptr16 loads are unsigned, hence the sign extension.
"""
# ruff: noqa: F821
# pyright: reportUndefinedVariable=false, reportAttributeAccessIssue=false, reportIndexIssue=false


@micropython.viper
def axis_sum(counts: ptr16, axis: int, number: int) -> int:
    total = 0
    at = axis
    while at < 3 * number:
        total += ((counts[at] & 0xFFFF) ^ 0x8000) - 0x8000
        at += 3
    return total


@micropython.viper
def difference_sums(counts: ptr16, axis: int, number: int, seed: int, sums: ptr32):
    s0 = s1 = s2 = s3 = 0
    p0 = p1 = p2 = 0
    i = 0
    at = axis
    while i < number:
        c = ((counts[at] & 0xFFFF) ^ 0x8000) - 0x8000
        d1 = c - p0
        d2 = d1 - p1
        d3 = d2 - p2
        p0 = c
        p1 = d1
        p2 = d2
        z = c - seed
        s0 += z + z if z >= 0 else -z - z - 1
        if i > 2:
            s3 += d3 + d3 if d3 >= 0 else -d3 - d3 - 1
        if i > 1:
            s2 += d2 + d2 if d2 >= 0 else -d2 - d2 - 1
        if i > 0:
            s1 += d1 + d1 if d1 >= 0 else -d1 - d1 - 1
        i += 1
        at += 3
    sums[0] = s0
    sums[1] = s1
    sums[2] = s2
    sums[3] = s3


@micropython.viper
def zigzag(counts: ptr16, axis: int, number: int, order: int, seed: int, values: ptr32):
    p0 = p1 = p2 = 0
    i = 0 - order
    at = axis
    while at < 3 * number:
        c = ((counts[at] & 0xFFFF) ^ 0x8000) - 0x8000
        d = c - seed
        if order > 0:
            d = c - p0
            p0 = c
        if order > 1:
            e = d
            d = d - p1
            p1 = e
        if order > 2:
            e = d
            d = d - p2
            p2 = e
        if i >= 0:
            values[i] = d + d if d >= 0 else -d - d - 1
        i += 1
        at += 3


@micropython.viper
def shifted_sum(values: ptr32, number: int, k: int) -> int:
    total = 0
    i = 0
    while i < number:
        total += values[i] >> k
        i += 1
    return total


@micropython.viper
def pack_remainders(values: ptr32, number: int, k: int, out: ptr8, at: int):
    mask = (1 << k) - 1
    held = pending = 0
    i = 0
    while i < number:
        pending = (pending << k) | (values[i] & mask)
        held += k
        while held >= 8:
            held -= 8
            out[at] = (pending >> held) & 0xFF
            pending &= (1 << held) - 1
            at += 1
        i += 1
    if held > 0:
        out[at] = (pending << (8 - held)) & 0xFF


@micropython.viper
def pack_unary(values: ptr32, number: int, k: int, out: ptr8, at: int, length: int):
    i = at
    while i < at + length:
        out[i] = 0
        i += 1
    bit = at << 3
    i = 0
    while i < number:
        bit += values[i] >> k
        out[bit >> 3] = out[bit >> 3] | (0x80 >> (bit & 7))
        bit += 1
        i += 1


@micropython.viper
def right_justify(counts: ptr16, number: int, shift: int) -> int:
    top = (1 << (15 - shift)) - 1
    bottom = -1 - top
    saturated = 0
    i = 0
    while i < number:
        count = (((counts[i] & 0xFFFF) ^ 0x8000) - 0x8000) >> shift
        counts[i] = count
        if count >= top:
            saturated = 1
        if count <= bottom:
            saturated = 1
        i += 1
    return saturated


@micropython.viper
def cobs(data: ptr8, length: int, out: ptr8) -> int:
    code = 1
    code_at = 0
    at = 1
    i = 0
    while i < length:
        byte = data[i]
        i += 1
        if byte != 0:
            out[at] = byte ^ 0x0A
            at += 1
            code += 1
        if byte == 0 or code == 0xFF:
            out[code_at] = code ^ 0x0A
            code = 1
            code_at = at
            at += 1
    out[code_at] = code ^ 0x0A
    out[at] = 0x0A
    return at + 1
