"""The bus in front of an I2C object of either runtime that behaves as the STM port does."""

import pytest

from node.bus import NOTECARD_ADDRESS, Bus

SENSOR = 0x18


class BusioI2C:
    """busio.I2C of CircuitPython on the STM port: two speeds, a plain lock, errors hidden by write-then-read."""

    opened = ()

    def __init__(self, frequency):
        if frequency not in (100_000, 400_000):
            raise ValueError("Unsupported baudrate")
        self.frequency = frequency
        self.locked = self.dead = False
        self.transfers = []
        self.failing = False
        type(self).opened += (self,)

    def deinit(self):
        self.dead = True

    def try_lock(self):
        taken, self.locked = self.locked, True
        return not taken

    def _transfer(self, *transfer):
        assert not self.dead
        if not self.locked:
            raise RuntimeError("Function requires lock")
        if self.failing:
            raise OSError(5, "Input/output error")
        self.transfers.append(transfer)

    def writeto(self, address, buffer, *, start=0, end=None):
        self._transfer("write", address, bytes(buffer[start:end]))

    def readfrom_into(self, address, buffer, *, start=0, end=None):
        self._transfer("read", address, len(buffer[start:end]))
        memoryview(buffer).cast("B")[:] = bytes(range(1, memoryview(buffer).nbytes + 1))

    def writeto_then_readfrom(self, *arguments, **options):
        raise AssertionError("hides errors on this port")


class MachineI2C:
    """machine.I2C of MicroPython: no lock, no start and end."""

    def __init__(self):
        self.transfers = []

    def writeto(self, address, buffer, stop=True):
        self.transfers.append(("write", address, bytes(buffer), stop))

    def readfrom_into(self, address, buffer, stop=True):
        self.transfers.append(("read", address, len(buffer)))


@pytest.fixture
def opened():
    BusioI2C.opened = ()
    return lambda: BusioI2C.opened


def test_each_chip_is_addressed_at_its_own_speed(opened):
    bus = Bus(BusioI2C)
    bus.writeto(SENSOR, b"\x0f")
    bus.writeto(SENSOR, b"\x0f")
    bus.writeto(NOTECARD_ADDRESS, b"\0\0")
    bus.writeto(SENSOR, b"\x0f")
    assert [i2c.frequency for i2c in opened()] == [400_000, 100_000, 400_000]
    assert [i2c.dead for i2c in opened()] == [True, True, False]
    bus.sensor_hz = 100_000
    bus.writeto(SENSOR, b"\x0f")
    bus.writeto(NOTECARD_ADDRESS, b"\0\0")
    assert len(opened()) == 4


def test_write_then_read_is_two_transfers(opened):
    bus = Bus(BusioI2C)
    into = bytearray(6)
    bus.writeto_then_readfrom(SENSOR, b"abc", into, out_start=1, in_start=2, in_end=5)
    assert opened()[0].transfers == [("write", SENSOR, b"bc"), ("read", SENSOR, 3)]
    assert into == b"\0\0\1\2\3\0"


def test_the_lock_may_be_taken_again_by_its_holder():
    bus = Bus(BusioI2C)
    assert bus.try_lock()
    assert bus.try_lock()
    bus.unlock()
    bus.unlock()
    bus.unlock()
    assert bus.try_lock()


def test_a_failed_transfer_is_an_oserror_and_counted(opened):
    bus = Bus(BusioI2C)
    bus.writeto(SENSOR, b"")
    opened()[0].failing = True
    with pytest.raises(OSError, match="Input/output"):
        bus.writeto(SENSOR, b"")
    with pytest.raises(OSError, match="Input/output"):
        bus.readfrom_into(SENSOR, bytearray(2))
    assert bus.errors == 2


def test_a_bus_that_does_not_open_is_an_oserror_and_opens_later(opened):
    wired = []

    def open_i2c(frequency):
        if not wired:
            raise RuntimeError("No pull up found on SDA or SCL; check your wiring")
        return BusioI2C(frequency)

    bus = Bus(open_i2c)
    with pytest.raises(OSError, match="No pull up"):
        bus.writeto(SENSOR, b"")
    wired.append(True)
    bus.writeto(SENSOR, b"")
    assert len(opened()) == 1


def test_machine_i2c_gets_what_it_understands():
    i2c = MachineI2C()
    bus = Bus(lambda frequency: i2c)
    assert bus.try_lock()
    bus.writeto(NOTECARD_ADDRESS, b"\0\2", False)  # note-python's call on MicroPython
    bus.readfrom_into(NOTECARD_ADDRESS, bytearray(9), start=1, end=5)
    bus.deinit()
    assert i2c.transfers == [("write", NOTECARD_ADDRESS, b"\0\2", True), ("read", NOTECARD_ADDRESS, 4)]
