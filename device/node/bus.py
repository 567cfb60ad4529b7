"""One I2C bus for everybody, with busio.I2C's surface.

Three things are put right underneath its users:
- speed: the Notecard takes about 100 kHz (dev.blues.io, serial-over-I2C), the LIS3DH 400 kHz (DS 5.1). The bus is
  opened anew when the other one is addressed; acquisition and talk alternate in phases, so that is rare.
- write-then-read: on the STM port writeto_then_readfrom hides a NACK and can wait for ever (circuitpython:ports/stm/
  common-hal/busio/I2C.c), and note-python uses it for every read. Here it is two transfers, each blocking, each
  with an error that shows.
- lock: it may be taken again by whoever holds it. There is one thread; and note-python takes the lock a second time
  when it retries inside a transaction, which with a plain lock turns one NACK into a failure.
"""

NOTECARD_ADDRESS = 0x17
NOTECARD_HZ = 100000
SENSOR_HZ = 400000


class PartError(OSError):
    """A part or the bus is not as it has to be; the message is one line that says what, where and what to do."""


class Bus:
    """`open_i2c(frequency)` makes a busio.I2C or a machine.I2C; it is called again whenever the speed changes.

    Every failed transfer is an OSError, counted in `errors`; a bus that does not open is a PartError.
    """

    def __init__(self, open_i2c):
        self.sensor_hz = SENSOR_HZ
        self.errors = 0
        self._open_i2c = open_i2c
        self._i2c = None
        self._frequency = 0
        self._locks = 0

    def try_lock(self):
        self._locks += 1
        return True

    def unlock(self):
        self._locks = max(0, self._locks - 1)

    def deinit(self):
        if self._i2c is not None and hasattr(self._i2c, "deinit"):
            self._i2c.deinit()
        self._i2c = None

    def scan(self):
        """Addresses that answer, at the speed that every chip can."""
        return self._i2c_for(NOTECARD_ADDRESS).scan()

    def answers(self, address):
        return address in self.scan()

    def writeto(self, address, buffer, stop=True, *, start=0, end=None):
        # `stop` is machine.I2C's: whatever it asks for, each transfer ends with a STOP
        i2c = self._i2c_for(address)
        try:
            i2c.writeto(address, _part(buffer, start, end))
        except OSError:
            self.errors += 1
            raise

    def readfrom_into(self, address, buffer, *, start=0, end=None):
        """Fill buffer[start:end]; both count elements, as in busio."""
        i2c = self._i2c_for(address)
        try:
            i2c.readfrom_into(address, _part(buffer, start, end))
        except OSError:
            self.errors += 1
            raise

    def writeto_then_readfrom(
        self, address, out_buffer, in_buffer, *, out_start=0, out_end=None, in_start=0, in_end=None
    ):
        self.writeto(address, out_buffer, start=out_start, end=out_end)
        self.readfrom_into(address, in_buffer, start=in_start, end=in_end)

    def _i2c_for(self, address):
        frequency = NOTECARD_HZ if address == NOTECARD_ADDRESS else self.sensor_hz
        if self._i2c is None or frequency != self._frequency:
            self.deinit()
            try:
                self._i2c = self._open_i2c(frequency)
            except (RuntimeError, ValueError) as error:  # busio's words for a bus without pull-ups or with a pin in use
                self.errors += 1
                raise PartError(
                    "I2C bus does not open (%s): no pull-ups? is the Qwiic cable in, is the Notecarrier powered?"
                    % error
                )
            self._frequency = frequency
            if hasattr(self._i2c, "try_lock"):
                self._i2c.try_lock()
        return self._i2c


def _part(buffer, start, end):
    if start == 0 and end is None:
        return buffer
    return memoryview(buffer)[start:end]
