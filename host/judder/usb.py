"""What is plugged into this computer: boards, their bootloaders and their drives.

USB ids: circuitpython:ports/stm/boards/swan_r5/mpconfigboard.mk, tinyuf2:ports/stm32l4/boards/swan_r5/board.h (the
same ids, volume SWANBOOT), ST AN2606 (ROM bootloader).
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serial.tools.list_ports import comports
from serial.tools.list_ports_common import ListPortInfo

SWAN = (0x30A4, 0x0002)
NOTECARD = (0x30A4, 0x0001)
PYTHON_VENDORS = {0xF055, 0x239A, 0x2E8A, 0x303A}  # MicroPython, Adafruit, Raspberry Pi, Espressif
ROM_BOOTLOADER = (0x0483, 0xDF11)
BOOTLOADER_LABEL = "SWANBOOT"
DRIVE_LABEL = "CIRCUITPY"
CIRCUITPYTHON_FOR_SWAN = "https://circuitpython.org/board/swan_r5"

_SYSFS = Path("/sys/bus/usb/devices")
_LABELS = Path("/dev/disk/by-label")


class BoardError(Exception):
    """Something is wrong with a board or the way to it; the message is one line that ends with what to do next."""


@dataclass(frozen=True)
class Seen:
    """What there is: serial ports on USB, USB ids of any kind, and labels of drives."""

    ports: Sequence[ListPortInfo]
    usb_ids: frozenset[tuple[int, int]]
    labels: frozenset[str]


def look() -> Seen:
    """Look at this computer's USB. Ids and labels are known on Linux, labels of mounted drives on macOS too."""
    found = [port for port in comports() if port.vid is not None]
    return Seen(found, _usb_ids() | {(port.vid, port.pid) for port in found}, _labels())


def find(seen: Seen) -> str:
    """The port of the one board there is. Raises BoardError when there is none, or several."""
    boards = [port for port in seen.ports if (port.vid, port.pid) == SWAN]
    if not boards:  # nothing else is sent Ctrl-C without being asked for by name
        boards = [port for port in seen.ports if port.vid in PYTHON_VENDORS]
    if not boards:
        raise BoardError(why_none(seen))
    if len(boards) > 1:
        names = ", ".join(f"{port.device} ({port.product or port.description})" for port in boards)
        raise BoardError(f"{len(boards)} boards: {names}; choose one with --port")
    return str(boards[0].device)


def why_none(seen: Seen) -> str:
    """The likeliest reason why no board is there, and what to do."""
    if BOOTLOADER_LABEL in seen.labels:
        return (
            f"no board runs Python: I see {BOOTLOADER_LABEL}, the Swan's bootloader; copy CircuitPython's .uf2 for "
            f"swan_r5 onto that drive ({CIRCUITPYTHON_FOR_SWAN})"
        )
    if ROM_BOOTLOADER in seen.usb_ids:
        return "no board runs Python: the Swan is in its chip's own bootloader (DFU); press RESET without holding BOOT"
    if SWAN in seen.usb_ids:
        return (
            "a Swan is there without a serial port: if its drive is SWANBOOT, copy CircuitPython's .uf2 for swan_r5 "
            f"onto it ({CIRCUITPYTHON_FOR_SWAN}); otherwise press RESET once"
        )
    if NOTECARD in seen.usb_ids:
        return "only the Notecard's own USB is connected: plug the cable into the Swan"
    if seen.ports:
        names = ", ".join(port.device for port in seen.ports)
        return f"no Swan and no other board that is known to run Python; if it is one of {names}: --port"
    return "no board on USB: plug in the Swan's own socket with a cable that carries data, and press RESET once"


def check_access(path: str) -> None:
    """Whether we may open the port. Raises BoardError with what to do when we may not, or when it is gone."""
    if not Path(path).exists():
        raise BoardError(f"{path} is not there: plug the board in, or leave out --port to have it found")
    if not Path(path).is_char_device():
        raise BoardError(f"{path} is no serial port: leave out --port to have the board found")
    if os.access(path, os.R_OK | os.W_OK):
        return
    group = _group(path)
    advice = f"sudo usermod -aG {group} $USER, then log in again" if group else "see who owns it"
    raise BoardError(f"permission denied on {path}: {advice}")


def _group(path: str) -> str:
    if sys.platform == "win32":
        return ""
    import grp

    return grp.getgrgid(Path(path).stat().st_gid).gr_name


def _usb_ids() -> frozenset[tuple[int, int]]:
    found = set()
    for vendor in _SYSFS.glob("*/idVendor"):
        try:
            found.add((int(vendor.read_text(), 16), int((vendor.parent / "idProduct").read_text(), 16)))
        except (OSError, ValueError):
            continue  # unplugged while we looked
    return frozenset(found)


def _labels() -> frozenset[str]:
    folders = [_LABELS, Path("/Volumes")]
    return frozenset(path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
