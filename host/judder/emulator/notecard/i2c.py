"""The Notecard on an I2C bus: serial over I2C (dev.blues.io, serial-over-I2C protocol)."""

from judder.emulator.notecard.card import Notecard

ADDRESS = 0x17
AVAILABLE_LIMIT = 253  # note-go:notecard/i2c-unix.go refuses more


class NotecardI2C:
    """The card as a chip on the bus.

    A write is `[length][bytes]`. `[0][n]` announces a read of n bytes and stays announced until the next write; the
    read gives `[available after it][n][n bytes]`, with n = 0 a mere query. Write and read may be one transfer or two.
    Malformed writes are refused and change nothing.
    """

    def __init__(self, card: Notecard) -> None:
        self.card = card
        self._announced = 0

    def answers(self) -> bool:
        self.card.agenda.advance()
        return self.card.up()

    def write(self, data: bytes, byte_ns: int) -> bool:
        length = data[0]
        if length == 0 and len(data) == 2:
            self._announced = data[1]
            return True
        if length == 0 or length != len(data) - 1:
            return False
        self._announced = 0
        self.card.feed(data[1:], len(data) * byte_ns)
        return True

    def read(self, length: int, byte_ns: int) -> bytes:
        # a read that ends a message shows 0 although the next may wait: clients go on reading while it is not 0
        left = self.card.available()
        data = self.card.read(self._announced)
        header = bytes((min(left - len(data), AVAILABLE_LIMIT), len(data)))
        return (header + data).ljust(length, b"\0")[:length]
