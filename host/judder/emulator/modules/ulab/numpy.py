from types import SimpleNamespace

from numpy import array as array
from numpy import concatenate as _concatenate
from numpy import dot as dot
from numpy import exp as exp
from numpy import fft as _numpy_fft
from numpy import float32 as float
from numpy import frombuffer as frombuffer
from numpy import int16 as int16
from numpy import log10 as log10
from numpy import max as max
from numpy import maximum as _maximum
from numpy import min as min
from numpy import sum as sum
from numpy import zeros as zeros


def _checked(*arrays):
    """ulab takes an empty array for one of length 1, and reads behind it."""
    if any(getattr(one, "size", 1) == 0 for one in arrays):
        raise ValueError("an empty array, which ulab does not compute with")


def concatenate(arrays):
    _checked(*arrays)
    return _concatenate(arrays)


def maximum(one, other):
    _checked(one, other)
    return _maximum(one, other)


def _fft(real):
    if len(real) & (len(real) - 1):
        raise ValueError("input array length must be power of 2")
    found = _numpy_fft.fft(real)
    return found.real.astype(float), found.imag.astype(float)


fft = SimpleNamespace(fft=_fft)
