"""Any file at all as settings.toml."""

import atexit
import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

from node.meanings import example
from node.settings import TABLE, check, load
from node.settings import read as settings_of

_FOLDER = TemporaryDirectory(prefix="judder-fuzz-")
atexit.register(_FOLDER.cleanup)
FILE = Path(_FOLDER.name) / "settings.toml"

SEEDS = [
    example().encode(),
    b"PRODUCT_UID = \"com.you:vib\"  # mine\r\nODR_HZ = 400 # slow\nDEVICE_SN = 'pump-3'\n[section]\n",
    b"\xef\xbb\xbfSAMPLES = 4096\nRING_BYTES = 16384\nWATCHDOG_S = 1800\nODR_HZ = 10\n",
    b"L\xe4uft",
]
WORDS = [word for name, *_ in TABLE for word in (name.encode(), f"\n{name} = ".encode())]
WORDS += [b"#", b'"', b"'", b" = ", b"CIRCUITPY_", b"stock", b"\xef\xbb\xbf", b"\r\n"]


def run(data):
    FILE.write_bytes(data)
    read = load(str(FILE))
    values = {}
    for name, default, allowed in TABLE:
        value = values[name] = getattr(read, name.lower())
        assert type(value) is type(default)
        assert check(name, str(value), default, allowed) == value
    for complaint in read.complaints:
        assert not any(unicodedata.category(one) == "Cc" for one in complaint), "it goes to a console"
        assert len(complaint) < 300
    assert len(read.complaints) < 20
    again = load(str(FILE))
    assert (again.hash, again.complaints) == (read.hash, read.complaints)
    if not any("'" in text and '"' in text for text in map(str, values.values())):
        assert settings_of(written(values)).hash == read.hash


def written(values):
    """A file that says them."""
    lines = []
    for name, value in values.items():
        quote = "'" if '"' in str(value) else '"'
        lines.append(f"{name} = {quote}{value}{quote}" if isinstance(value, str) else f"{name} = {value}")
    return "\n".join(lines)
