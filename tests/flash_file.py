"""A file on the flash model without a file system, as the emulated board has one: here in the test's own process."""

from judder.emulator.flash import BLOCK_BYTES
from judder.emulator.modules import _flash_file


class Blocks:
    """The flash as MicroPython's file systems ask for it."""

    def __init__(self, flash):
        self._flash = flash

    def readblocks(self, number, buffer):
        buffer[:] = self._flash.read(number, len(buffer) // BLOCK_BYTES)

    def writeblocks(self, number, buffer):
        self._flash.write(number, bytes(buffer))


def flash_file(flash, first_block, size):
    return _flash_file.FlashFile(Blocks(flash), first_block, size)
