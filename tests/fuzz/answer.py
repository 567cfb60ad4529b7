"""Any JSON in the place of the server's acknowledgement."""

import json
import math
from contextlib import suppress

from node.uplink import LinkError, _acknowledged

SEEDS = [
    b'{"stored": [[3735928559, 7], [1, 2]], "rejected": [[3735928559, 8, "crc"]]}',
    b'{"stored": [], "rejected": []}',
    b'{"stored": [[3735928559, 7]], "rejected": [], "resend": [[3735928559, 1, 5]]}',
    b'{"stored": {"ab": 1}, "rejected": [[1.0, 1e999, null]]}',
    b'"<html>"',
]
WORDS = [b'"stored":', b'"rejected":', b'"resend":', b"[[", b"]]", b"null", b"true", b"1e999", b"NaN", b"{}", b'""']
_SCALARS = (0, 7, 1, 3735928559, -1, 7.0, 0.5, 1e300, math.inf, math.nan, "ab", "7", "", None, True, "9" * 5000)


def run(data):
    with suppress(ValueError, RecursionError):
        check(json.loads(data))
    check({name: value(iter(data[start::2]), 5) for start, name in enumerate(("stored", "rejected"))})


def value(given, depth):
    """What JSON can say, as the bytes have it: a list often, as a key is."""
    kind = next(given, 0)
    if kind & 1 and depth:
        return [value(given, depth - 1) for _ in range(kind >> 1 & 3)]
    if kind & 2 and depth:
        return {str(next(given, 0)): value(given, depth - 1) for _ in range(kind >> 2 & 3)}
    return _SCALARS[(kind >> 2) % len(_SCALARS)]


def check(body):
    try:
        stored, refused, *_ = _acknowledged(body)
    except LinkError:
        return
    for key in [*stored, *((boot, sequence) for boot, sequence, _ in refused)]:
        assert [type(number) for number in key] == [int, int], "main.py prints %08x"
