"""CircuitPython's storage: one of PC and firmware owns the drive (circuitpython:shared-bindings/storage)."""

import sys

import _bench
import _drive

_EJECT_MS = 2500  # the host looks every second or two whether the drive is still there


def remount(mount_path, readonly=False, *, disable_concurrent_write_protection=False):
    if _bench.usb_is_up and not _bench.drive_is_ours():
        raise RuntimeError("Cannot remount path when visible via USB.")
    _bench.own_drive(not readonly)


def disable_usb_drive():
    if _bench.usb_is_up:
        raise RuntimeError("Cannot change USB devices now")
    _bench.own_drive(True)


if sys.implementation.version >= (10, 3):

    def unsafe_disable_usb_drive():
        _bench.own_drive(True)
        if _bench.usb_is_up:
            _bench.sleep_ms(_EJECT_MS)

    def enable_usb_drive():
        _bench.own_drive(False)


def erase_filesystem(extended=None):
    _bench.call(ord("E"))


class VfsFat:
    def __init__(self, block_device=None):
        self.blocks = block_device  # None: CIRCUITPY itself

    @property
    def readonly(self):
        return not _bench.drive_is_ours()


def getmount(mount_path):
    return VfsFat()


def mount(filesystem, mount_path, *, readonly=False):
    """Of a volume behind a block device, to read from."""
    if not readonly:
        raise ValueError("to mount it for writing is not modelled")
    _drive.mount(filesystem.blocks, mount_path)
