"""judder on the board: which code runs, which pins it has, and what somebody at the console may ask for.

An update by file (slots.py) replaces node/; what is beside it stays as deploy or an image has made it. Only this file
knows pins.
"""

import gc
import os
import sys

if __name__ == "__main__" and "code-a.bin" in os.listdir():
    import slots

    slots.start()
    del slots
    gc.collect()


def failed(error):
    """Code of an update that cannot start makes way for what was before it."""
    slots = sys.modules.get("slots")
    if slots is not None:
        slots.code_failed(error)


try:
    from node.node import PAUSE_S, Node, describe, let_go  # first: it takes most room to compile
except Exception as error:
    failed(error)
    raise

gc.collect()
from node import clock


def open_i2c(frequency):
    try:
        import board
        import busio
    except ImportError:
        import machine  # pyright: ignore[reportMissingImports]

        return machine.I2C(1, freq=frequency)
    return busio.I2C(board.SCL, board.SDA, frequency=frequency)


def budget(values):
    """Monthly data at these settings if every window took 2.4 bytes a sample and 1 kB for its connection."""
    monthly_bytes = (values.samples * 12 // 5 + 1024) * (2592000 // values.capture_every_s)
    return "%d samples every %d s: about %d MB a month" % (
        values.samples,
        values.capture_every_s,
        (monthly_bytes + 999999) // 1000000,
    )


def selftest():
    """What this board measures of itself; for the console and judder doctor."""
    gc.collect()  # the firmware that ran before: what is left decides where the selftest's code and buffers lie
    from node import selftest as tests

    return tests.run(open_i2c, describe)


def stop(node):
    waiting = 0
    if node is not None:
        node.stop()
        waiting = node.ring.windows_in_ram()
    lost = "; windows not sent yet, and lost: %d" % waiting if waiting else ""
    print("stopped at the console%s" % lost)


def read_drive():
    """Manifest and Settings. What is needed until the Notecard has answered is compiled now, while there is room."""
    from node import boots, manifest, remote, settings  # noqa: F401

    about, values = manifest.read(), settings.load()
    let_go("manifest")
    return about, values


def main():
    try:
        about, values = read_drive()
    except Exception as error:
        failed(error)
        raise
    print("judder %s starts" % about.version)
    pause_s = 0
    while True:
        node = None
        try:
            clock.sleep_ms(pause_s * 1000)
            for complaint in values.complaints:
                print(complaint)
            print(budget(values))
            node = Node(values, open_i2c, about)
            node.run()
        except KeyboardInterrupt:
            stop(node)
            return
        except Exception as error:
            failed(error)
            print("cannot start: %s; SAMPLES and RING_BYTES decide how much memory is needed" % describe(error))
            pause_s = PAUSE_S


if __name__ == "__main__":
    main()
