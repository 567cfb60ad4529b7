"""After a crash of CircuitPython itself: start again, but not for ever.

CircuitPython resets into safe mode when it crashes (a hard fault, a broken heap ...), and stays there until somebody
presses RESET. It runs this first (circuitpython:main.c), except when a person asked for safe mode by a button; USB
comes up only when it has ended. Each recovery is counted in a file that main.py sets back once the server has a
window; after LIMIT of them in a row the board stays in safe mode, where the PC owns the drive and boot.py does not run.
"""

FILE = "recoveries.txt"
LIMIT = 5
DELIBERATE = (
    "PROGRAMMATIC",
    "USER",
    "NO_CIRCUITPY",
    "SAFEMODE_PY_ERROR",
    "FLASH_WRITE_FAIL",
    "USB_TOO_MANY_ENDPOINTS",
    "USB_TOO_MANY_INTERFACE_NAMES",
    "USB_BOOT_DEVICE_NOT_INTERFACE_ZERO",
)


def deliberate(supervisor):
    """Whether a reset would lead to the same again, or somebody wants safe mode."""
    reason = supervisor.runtime.safe_mode_reason
    return reason in [getattr(supervisor.SafeModeReason, name, None) for name in DELIBERATE]


def recoveries():
    """How many there have been since a window was stored; as many as allowed if the file is there but unreadable."""
    try:
        with open(FILE) as file:
            return int(file.read())
    except OSError:
        return 0
    except ValueError:
        return LIMIT


def recover():
    """Count, then reset; stays in safe mode when the count cannot be kept."""
    import time

    import microcontroller
    import storage
    import supervisor

    count = recoveries()
    if deliberate(supervisor) or count >= LIMIT:
        return
    storage.remount("/", readonly=False)
    try:
        with open(FILE, "w") as file:
            file.write("%d" % (count + 1))
    except OSError:
        storage.remount("/", readonly=True)  # the PC can make room, or mend what is wrong
        raise
    time.sleep(1 << count)  # a supply that dips gets time to come back
    microcontroller.reset()


if __name__ == "__main__":
    recover()
