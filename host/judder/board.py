"""Where the board's files are: in a checkout, or packed into the installed package."""

from dataclasses import dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

RING_FILE = "ring.bin"
RING_BYTES = 256 * 1024
"""The board's file for windows that wait (device/node/ring.py): `judder deploy` makes it once, and it never grows."""

MODEL_FILE = "model.bin"
"""The model that the board scores its windows with (device/node/policy.py)."""

SETTINGS_FILE = "settings.toml"

SLOTS = {"model-a.bin": 32 * 1024, "model-b.bin": 32 * 1024, "code-a.bin": 168 * 1024, "code-b.bin": 168 * 1024}
"""Room for updates by file (device/slots.py), made once as the ring is: the one in use, and the next."""

SLOT_FOLDER = "slot"
"""Where the board mounts the code of an update; CircuitPython wants the folder to be there."""


@dataclass(frozen=True)
class Tree:
    """The board's root: `device` holds main.py, node/ and lib/; `boot` is the board's boot.py."""

    device: Path
    boot: Path


def tree() -> Tree:
    """Find the board's tree. Raises FileNotFoundError, with what to do, when its libraries are missing."""
    packed = Path(__file__).parent / "_board"
    checkout = Path(__file__).parents[2]
    found = Tree(packed / "device", packed / "boot.py")
    if not packed.is_dir():
        found = Tree(checkout / "device", checkout / "boot.py")
    if not (found.device / "lib" / "adafruit_lis3dh.py").is_file():
        raise FileNotFoundError(f"no device libraries in {found.device / 'lib'}: run `make setup` in the checkout")
    return found


@cache
def board_settings() -> ModuleType:
    """The board's own node/settings.py: its TABLE, what it makes of a text (check). Raises FileNotFoundError."""
    path = tree().device / "node" / "settings.py"
    spec = spec_from_file_location("judder.board.settings", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path} is no module")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
