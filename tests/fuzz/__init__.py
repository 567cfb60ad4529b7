"""Fuzzing: what has to hold for any bytes at all (docs/fuzzing.md).

A target is a module here with `run(data)`, which asserts it, `SEEDS` to begin with, and `WORDS` that nobody comes upon
by chance. `corpus` holds the fewest inputs that reach all that was ever reached, `found` those that once failed.
"""

from pathlib import Path

_NOTECARD = ("card", "line", "i2c", "agenda", "attn", "binary_store", "link", "notefiles", "update", "requests/*")
TARGETS = {  # and the files whose lines it is to reach
    "decode": tuple(f"host/judder/{name}.py" for name in ("frame", "rice", "report")),
    "http": tuple(f"host/judder/{name}.py" for name in ("ingest", "account")),
    "notecard": tuple(f"host/judder/emulator/notecard/{name}.py" for name in _NOTECARD),
    "settings": ("device/node/settings.py",),
    "ring": ("device/node/ring.py", "device/node/records.py"),
    "answer": (),  # one function of uplink's
}
FOLDER = Path(__file__).parent


def kept(target):
    """The committed inputs of a target."""
    return sorted(path for folder in ("corpus", "found") for path in (FOLDER / folder / target).glob("*"))
