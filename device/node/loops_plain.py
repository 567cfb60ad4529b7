"""Everything that touches each sample or byte, in plain Python; its twin is loops_viper.

Counts are an array('h') of x, y, z in turn, values an array('i'). Nothing is allocated here.
"""


def axis_sum(counts, axis, number):
    total = 0
    for i in range(axis, 3 * number, 3):
        total += counts[i]
    return total


def difference_sums(counts, axis, number, seed, sums):
    """Sums of the zigzagged differences of order 0 (from `seed`) to 3."""
    s0 = s1 = s2 = s3 = 0
    p0 = p1 = p2 = 0
    i = 0
    for at in range(axis, 3 * number, 3):
        c = counts[at]
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
    sums[0] = s0
    sums[1] = s1
    sums[2] = s2
    sums[3] = s3


def zigzag(counts, axis, number, order, seed, values):
    """The zigzagged differences of one order: `number` - `order` of them."""
    p0 = p1 = p2 = 0
    i = -order
    for at in range(axis, 3 * number, 3):
        c = counts[at]
        if order == 0:
            d = c - seed
        else:
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


def shifted_sum(values, number, k):
    total = 0
    for i in range(number):
        total += values[i] >> k
    return total


def pack_remainders(values, number, k, out, at):
    """The lowest k bits of each value, highest bit first."""
    mask = (1 << k) - 1
    held = pending = 0
    for i in range(number):
        pending = pending << k | values[i] & mask
        held += k
        while held >= 8:
            held -= 8
            out[at] = pending >> held & 0xFF
            pending &= (1 << held) - 1
            at += 1
    if held:
        out[at] = pending << 8 - held & 0xFF


def pack_unary(values, number, k, out, at, length):
    """The rest of each value as so many zeros and a one."""
    for i in range(at, at + length):
        out[i] = 0
    bit = at << 3
    for i in range(number):
        bit += values[i] >> k
        out[bit >> 3] |= 0x80 >> (bit & 7)
        bit += 1


def right_justify(counts, number, shift):
    """Left-justified register values to counts; 1 when one is at the end of the code range, else 0."""
    top = (1 << 15 - shift) - 1
    bottom = -1 - top
    saturated = 0
    for i in range(number):
        count = counts[i] >> shift
        counts[i] = count
        if count >= top or count <= bottom:
            saturated = 1
    return saturated


def cobs(data, length, out):
    """COBS with XOR 0x0A and a newline (node.cobs); returns the encoded length."""
    code = 1
    code_at = 0
    at = 1
    for i in range(length):
        byte = data[i]
        if byte:
            out[at] = byte ^ 0x0A
            at += 1
            code += 1
            if code != 0xFF:
                continue
        out[code_at] = code ^ 0x0A
        code = 1
        code_at = at
        at += 1
    out[code_at] = code ^ 0x0A
    out[at] = 0x0A
    return at + 1
