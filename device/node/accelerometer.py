"""LIS3DH accelerometer: Adafruit's driver, the FIFO it leaves out, and the acquisition of a window from it.

Document: ST DocID17530 Rev 2 (DS, registers), ST AN3308 Rev 3 (AN, FIFO).

The parent gives identity check, reset and register access; its own way of reading (one sample a call, high
resolution) loses samples and cuts the bandwidth to ODR/9. Here samples come from the FIFO in stream mode, normal
mode, straight into the window's array: no copy, no allocation per sample. Qwiic has no interrupt wire, so the level
is polled; nothing else happens on the bus meanwhile.
"""

import gc
import sys

from node import clock
from node.bus import PartError

try:
    import digitalio  # noqa: F401  # adafruit_lis3dh asks for it, for pins that are not used here
except ImportError:  # MicroPython has none

    class NoPins:
        DigitalInOut = object

    sys.modules["digitalio"] = NoPins  # pyright: ignore

import adafruit_lis3dh

ADDRESS = 0x18
FIFO_DEPTH = 32
NORMAL_MODE = 1
SHIFT = 6  # the FIFO is 10 bits wide, left-justified in 16 (DS 3.6)
SETTLING = 8  # samples discarded after the start: more than any mode's turn-on time (DS table 10)
READ_AT = 8  # samples: with a FIFO of 32 this leaves room for a stall of 10 ms at 1344 Hz + 10 %
TRIES = 5
TOLERATED_NACKS = 2  # in the bus test
GARBAGE_BYTES = 32768 << (sys.maxsize > 0x7FFFFFFF)  # more than a window leaves behind; objects of 64 bits are wider
LOOKS = 128  # at the level, at least, in windows long enough for it: they tell the interval
EARLY = 32  # samples: a window in which something is lost before them starts anew, behind the gap
FRESH_STARTS = 8
FASTEST = 110  # percent of the nominal rate that a part may reach; bounds what can have been lost unseen
SLOW_ODR_HZ = 400  # what a bus at 100 kHz can carry without loss
UNRELIABLE = "I2C is not reliable at 400 kHz: 100 kHz and %d Hz from now on; check pull-ups"
PATIENCE = 64  # samples' time, and a second, to wait for a FIFO that does not fill

ODR_CODES = {10: 2, 25: 3, 50: 4, 100: 5, 200: 6, 400: 7, 1344: 9}  # CTRL_REG1, DS table 31
SENSITIVITY_UG = {2: 4000, 4: 8000, 8: 16000, 16: 48000}  # micro-g per count in normal mode, DS table 4
_FULL_SCALE_CODES = {2: 0, 4: 1, 8: 2, 16: 3}
_IDENTITY = 0x33
_LOOK_ALIKES = {0x32: "LIS331DLH", 0x41: "LIS2HH12", 0x44: "LIS2DW12"}  # by their WHO_AM_I

_TEMP_CFG_REG = 0x1F
_CTRL_REG1 = 0x20
_CTRL_REG4 = 0x23
_CTRL_REG5 = 0x24
_FIFO_CTRL_REG = 0x2E
_FIFO_SRC_REG = 0x2F
_WHO_AM_I = 0x0F
_ADC3 = 3

_OUT_X_L_AUTO_INCREMENT = b"\xa8"
_ADC_EN_TEMP_EN = 0xC0
_BDU = 0x80
_FIFO_EN = 0x40
_BYPASS = 0x00
_STREAM_FTH_15 = 0x8F
_XYZ = 0x07
_OVRN = 0x40
_EMPTY = 0x20
_FSS = 0x1F


class Accelerometer(adafruit_lis3dh.LIS3DH_I2C):
    """An LIS3DH behind `bus`. Raises OSError whenever the part does not answer as an LIS3DH should."""

    def __init__(self, bus, address=ADDRESS):
        try:
            super().__init__(bus, address=address)
        except ValueError:  # the parent's word for no answer
            raise PartError("no LIS3DH at 0x%02x%s" % (address, _where_it_may_be(bus.scan(), address)))
        except RuntimeError:  # and for a wrong WHO_AM_I
            raise PartError("no LIS3DH at 0x%02x: %s" % (address, _what_it_is(self._read_register_byte(_WHO_AM_I))))

    def answers_reliably(self):
        """Whether 64 reads of WHO_AM_I and 16 written patterns come back right at the present bus speed.

        A wrong value is too much; a NACK now and then is not.
        """
        errors = 0
        for i in range(80):
            pattern = i & 15
            try:
                if i < 64:
                    right = self._read_register_byte(_WHO_AM_I) == _IDENTITY
                else:
                    self._write_register_byte(_FIFO_CTRL_REG, pattern)
                    right = self._read_register_byte(_FIFO_CTRL_REG) == pattern
            except OSError:
                errors += 1
                right = errors <= TOLERATED_NACKS
            if not right:
                return False
        return True

    def start(self, odr_hz, full_scale_g):
        """Stream into an empty FIFO from now on: normal mode, BDU, no high-pass filter."""
        self._write_register_byte(_CTRL_REG1, _XYZ)  # power down: the new rate starts at a known phase
        self._write_register_byte(_TEMP_CFG_REG, _ADC_EN_TEMP_EN)
        self._write_register_byte(_CTRL_REG4, _BDU | _FULL_SCALE_CODES[full_scale_g] << 4)
        self._write_register_byte(_CTRL_REG5, _FIFO_EN)
        self._write_register_byte(_FIFO_CTRL_REG, _BYPASS)  # the only way to empty the FIFO (AN 9.3.1)
        self._write_register_byte(_FIFO_CTRL_REG, _STREAM_FTH_15)
        self._write_register_byte(_CTRL_REG1, ODR_CODES[odr_hz] << 4 | _XYZ)

    def still_set(self, odr_hz, full_scale_g):
        """Whether the part still measures as `start` told it to; False after a brown-out."""
        return (
            self._read_register_byte(_CTRL_REG1) == ODR_CODES[odr_hz] << 4 | _XYZ
            and self._read_register_byte(_CTRL_REG4) == _BDU | _FULL_SCALE_CODES[full_scale_g] << 4
            and self._read_register_byte(_CTRL_REG5) == _FIFO_EN
            and self._read_register_byte(_FIFO_CTRL_REG) == _STREAM_FTH_15
        )

    def stop(self):
        """Power down. Registers and the last output stay (DS 3.2.1)."""
        self._write_register_byte(_CTRL_REG1, _XYZ)

    def fifo_level(self):
        """Unread samples, 0..32. 32 is OVRN: full, and older samples may already be gone (AN table 40)."""
        source = self._read_register_byte(_FIFO_SRC_REG)
        return FIFO_DEPTH if source & _OVRN else source & _FSS

    def fifo_is_empty(self):
        return bool(self._read_register_byte(_FIFO_SRC_REG) & _EMPTY)

    def read_into(self, counts, sample, number):
        """Read `number` samples (no more than fifo_level said) into counts[3 * sample:], still left-justified."""
        with self._i2c as device:
            device.write(_OUT_X_L_AUTO_INCREMENT)
            device.readinto(counts, start=3 * sample, end=3 * (sample + number))

    def temperature(self):
        """Relative temperature in 1/256 degC, as OUT_ADC3 has it (DS 3.7)."""
        return self.read_adc_raw(_ADC3)


def _where_it_may_be(found, address):
    other = address ^ 1  # the level of its pin SA0 decides
    if other in found:
        return " but something at 0x%02x: set SENSOR_ADDRESS = %d" % (other, other)
    return ": Qwiic cable in? SENSOR_ADDRESS is 24 for 0x18, 25 for 0x19"


def _what_it_is(identity):
    if identity == _IDENTITY:
        return "WHO_AM_I came wrong once: check Qwiic cable and pull-ups"
    name = _LOOK_ALIKES.get(identity)
    return "WHO_AM_I is 0x%02x, not 0x33%s: use an LIS3DH" % (identity, " (%s)" % name if name else "")


def capture(accelerometer, window, odr_hz, full_scale_g):
    """Fill `window` from the FIFO and measure it; returns how many tries it took.

    A try in which samples may have been lost or a transfer failed is thrown away; only the last one keeps gaps.
    Raises OSError when the part still fails then.
    """
    window.odr_hz = odr_hz
    window.full_scale_g = full_scale_g
    window.mode = NORMAL_MODE
    window.sensitivity_ug = SENSITIVITY_UG[full_scale_g]
    tries = 0
    complete = False
    while not complete:
        tries += 1
        window.clear(0)  # what the window or the try before left goes with the collection
        gc.collect()
        if not hasattr(gc, "mem_free") or gc.mem_free() > GARBAGE_BYTES:  # pyright: ignore
            gc.disable()  # else a collection may cost samples, which shows, and no memory would cost the window
        try:
            complete = _fill(accelerometer, window, tries == TRIES)
            window.measure()
        except OSError:
            if tries == TRIES:
                raise
        finally:
            gc.enable()
        if window.gaps and tries < TRIES:
            complete = False
    window.right_justify(SHIFT)
    return tries


def _fill(accelerometer, window, keep_gaps):
    """Read the window's samples; False as soon as the FIFO is full and gaps are not to be kept."""
    _start(accelerometer, window)
    odr_hz = window.odr_hz
    samples = window.samples
    pause_ms = min(READ_AT * 1000 // odr_hz, max(2, samples * 1000 // odr_hz // LOOKS))
    spread_ms = max(4, pause_ms // 4)
    fastest_hz = odr_hz * FASTEST // 100
    read = dither = fresh_starts = 0
    read_us = clock.now_us()
    while read < samples:
        dither = (dither * 13 + 7) & 63  # visits every value; its upper bits are the irregular ones
        clock.sleep_ms(pause_ms - 1 + (dither * spread_ms >> 6))
        before_us = clock.now_us()
        level = accelerometer.fifo_level()
        after_us = clock.now_us()
        full = level >= FIFO_DEPTH
        if not full:
            window.look(read + level, before_us, after_us)
        if level < READ_AT:
            _check_alive(after_us - read_us, odr_hz)
            continue
        number = min(level, samples - read)
        accelerometer.read_into(window.counts, read, number)
        # a stall between the look and the read overflows the FIFO without OVRN ever being seen
        read_us = clock.now_us()
        unseen = level + (read_us - before_us) * fastest_hz // 1000000 >= FIFO_DEPTH
        if full and not keep_gaps:
            return False
        if (full or unseen) and read <= EARLY and fresh_starts < FRESH_STARTS:
            fresh_starts += 1
            window.clear(read_us)
            read = 0
            continue
        if full or unseen:
            window.gap(read, full)
        read += number
    _finish(accelerometer, window)
    return True


def _start(accelerometer, window):
    """Start the stream and let the filter settle: the first samples are read into the window and overwritten."""
    accelerometer.start(window.odr_hz, window.full_scale_g)
    started_us = clock.now_us()
    while accelerometer.fifo_level() < SETTLING:
        clock.sleep_ms(SETTLING * 1000 // window.odr_hz)
        _check_alive(clock.now_us() - started_us, window.odr_hz)
    accelerometer.read_into(window.counts, 0, SETTLING)
    window.clear(started_us)


def _finish(accelerometer, window):
    """One more look, so that a segment that began with the last batch has one; then check and stop the part."""
    before_us = clock.now_us()
    level = accelerometer.fifo_level()
    if level < FIFO_DEPTH:
        window.look(window.samples + level, before_us, clock.now_us())
    if not accelerometer.still_set(window.odr_hz, window.full_scale_g):
        raise OSError("LIS3DH lost its settings while measuring (brown-out?)")
    window.temperature = accelerometer.temperature()
    accelerometer.stop()


def _check_alive(waited_us, odr_hz):
    if waited_us > 1000000 + PATIENCE * 1000000 // odr_hz:
        raise OSError("LIS3DH FIFO does not fill at %d Hz" % odr_hz)
