"""What deploy or an image has put on the drive: its version, and whether all of it is there (docs/updates.md)."""

import json
import sys
from binascii import crc32

FILE = "manifest.json"
VERSION = "0.1.0"  # of a drive that says nothing of itself
PIECE_BYTES = 1024


class Manifest:
    """Without methods, so that this module can go.

    `damage`: the first file that is not as it should be, None when all are; `said`: the version as dfu.status takes it.
    """

    version, revision, damage = VERSION, "", None
    said: dict


def read(path=FILE):
    """The Manifest of this drive; its version is that of an update by file, where there is one."""
    found = Manifest()
    _check(found, path)
    slots = sys.modules.get("slots")
    if slots is not None and slots.running[slots.CODE] is not None:
        found.version = slots.running[slots.CODE].version
    said = {"product": "judder", "version": found.version}
    numbers = found.version.split("-")[0].split("+")[0].split(".")
    for name, number in zip(("ver_major", "ver_minor", "ver_patch"), numbers):
        said[name] = int(number) if number.isdigit() else 0
    if found.revision:
        said["builder"] = found.revision
    found.said = said
    return found


def _check(found, path):
    try:
        with open(path) as file:
            content = json.load(file)
        found.version, found.revision = content["version"], content["revision"]
        for name in content["files"]:
            if tuple(content["files"][name]) != _measured(name):
                found.damage = "%s is not the file that %s names" % (name, path)
                return
    except OSError:  # a drive that was filled by hand
        pass
    except (KeyError, TypeError, ValueError):
        found.damage = "%s is no manifest" % path


def _measured(name):
    """Size and CRC-32 of a file; None when there is none."""
    size = checksum = 0
    try:
        with open(name, "rb") as file:
            piece = file.read(PIECE_BYTES)
            while piece:
                size += len(piece)
                checksum = crc32(piece, checksum)
                piece = file.read(PIECE_BYTES)
    except OSError:
        return None
    return size, checksum & 0xFFFFFFFF
