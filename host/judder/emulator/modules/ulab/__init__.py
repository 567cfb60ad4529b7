"""The part of CircuitPython's ulab that the firmware uses, on numpy, in single precision.

(circuitpython:shared-bindings/ulab and v923z/micropython-ulab; built without complex numbers, as for the Swan)
"""

from . import numpy as numpy
from . import scipy as scipy
