"""CircuitPython's supervisor: the millisecond counter, why the board is in safe mode, auto-reload."""

import _bench


def ticks_ms():
    """Wraps at 2**29 and starts 65 s before that (circuitpython:shared-bindings/supervisor)."""
    return (_bench.now_ns() // 1000000 + 0x1FFF0000) & 0x1FFFFFFF


class SafeModeReason:
    """Constants that are only ever compared."""

    NONE = "NONE"
    BROWNOUT = "BROWNOUT"
    FLASH_WRITE_FAIL = "FLASH_WRITE_FAIL"
    GC_ALLOC_OUTSIDE_VM = "GC_ALLOC_OUTSIDE_VM"
    HARD_FAULT = "HARD_FAULT"
    INTERRUPT_ERROR = "INTERRUPT_ERROR"
    NLR_JUMP_FAIL = "NLR_JUMP_FAIL"
    NO_CIRCUITPY = "NO_CIRCUITPY"
    NO_HEAP = "NO_HEAP"
    PROGRAMMATIC = "PROGRAMMATIC"
    SAFEMODE_PY_ERROR = "SAFEMODE_PY_ERROR"
    SDK_FATAL_ERROR = "SDK_FATAL_ERROR"
    STACK_OVERFLOW = "STACK_OVERFLOW"
    USB_BOOT_DEVICE_NOT_INTERFACE_ZERO = "USB_BOOT_DEVICE_NOT_INTERFACE_ZERO"
    USB_TOO_MANY_ENDPOINTS = "USB_TOO_MANY_ENDPOINTS"
    USB_TOO_MANY_INTERFACE_NAMES = "USB_TOO_MANY_INTERFACE_NAMES"
    USER = "USER"
    WATCHDOG = "WATCHDOG"


class _Runtime:
    safe_mode_reason = SafeModeReason.NONE

    @property
    def autoreload(self):
        return _bench.call(ord("A"), read_length=1)[1] == b"\x01"

    @autoreload.setter
    def autoreload(self, on):
        _bench.call(ord("A"), written=bytes([on]))


runtime = _Runtime()
