"""CircuitPython's busio on the Swan: I2C as circuitpython:ports/stm/common-hal/busio/I2C.c behaves."""

import sys

import _bench

_T, _F = ord("T"), ord("F")
_EIO = 5
_in_use = set()


class I2C:
    def __init__(self, scl, sda, *, frequency=100000, timeout=255):
        if frequency not in (100000, 400000):
            raise ValueError("Unsupported baudrate")
        for pin in (scl, sda):
            if pin in _in_use:
                raise ValueError(f"{pin} in use")
        _in_use.update((scl, sda))
        self._pins = (scl, sda)
        self._locked = False
        _bench.call(_F, written=frequency.to_bytes(4, "little"))

    def deinit(self):
        _in_use.difference_update(self._pins)
        self._pins = ()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.deinit()

    def try_lock(self):
        self._check_alive()
        if self._locked:
            return False
        self._locked = True
        return True

    def unlock(self):
        self._check_alive()
        self._locked = False

    def scan(self):
        self._check_lock()
        return [address for address in range(0x08, 0x78) if not _bench.call(_T, address)[0]]

    def writeto(self, address, buffer, *, start=0, end=sys.maxsize):
        self._check_lock()
        status, _ = _bench.call(_T, address, bytes(_elements(buffer, start, end)))
        if status:
            raise OSError(_EIO, "Input/output error")

    def readfrom_into(self, address, buffer, *, start=0, end=sys.maxsize):
        self._check_lock()
        view = _elements(buffer, start, end)
        status, data = _bench.call(_T, address, read_length=len(view))
        view[: len(data)] = data
        if status:
            raise OSError(_EIO, "Input/output error")

    def writeto_then_readfrom(
        self,
        address,
        out_buffer,
        in_buffer,
        *,
        out_start=0,
        out_end=sys.maxsize,
        in_start=0,
        in_end=sys.maxsize,
    ):
        # The port ignores the error of this path: a NACK looks like success and leaves the old bytes in the buffer.
        self._check_lock()
        view = _elements(in_buffer, in_start, in_end)
        status, data = _bench.call(_T, address, bytes(_elements(out_buffer, out_start, out_end)), len(view))
        if not status:
            view[: len(data)] = data

    def _check_alive(self):
        if not self._pins:
            raise ValueError("Object has been deinitialized and can no longer be used. Create a new object.")

    def _check_lock(self):
        self._check_alive()
        if not self._locked:
            raise RuntimeError("Function requires lock")


def _elements(buffer, start, end):
    """The bytes of buffer[start:end], counted in elements."""
    return memoryview(buffer)[start:end].cast("B")


class SPI:
    """Named in annotations of the libraries; the Swan's SPI is not emulated."""
