"""What happened, as JSON lines: to compare runs, and to attach to a bug report.

Each line has `t_s` (the bench's time), `what` and its own members: `request` and `reply` with their line as it was;
`stream` of binary data with length and MD5; `bus` for each I2C transfer; `post` for each web request and `answer`;
`sync`, `event` for a note that reached Notehub, `download`, `attn`, `restart`. The same run gives the same lines on a
virtual clock. Tokens of routes are Notehub's and not in it; what the host itself sends is.
"""

import hashlib
import json
from collections.abc import Callable

from judder.emulator.clock import Clock

Trace = Callable[..., None]
"""Called with what happened and its members: bytes called `data` are told by length and MD5, any others in hex."""


def silent(what: str, **members: object) -> None:
    """Keep nothing."""


def json_lines(clock: Clock, write: Callable[[str], object]) -> Trace:
    """A trace that hands each line to `write`."""

    def trace(what: str, **members: object) -> None:
        record = {"t_s": round(clock.now_ns() / 1e9, 6), "what": what, **members}
        data = record.pop("data", None)
        if isinstance(data, bytes):
            record |= {"bytes": len(data), "md5": hashlib.md5(data, usedforsecurity=False).hexdigest()}
        write(json.dumps(record, separators=(",", ":"), default=bytes.hex) + "\n")

    return trace
