"""Who owns the board's drive: the firmware (normal mode) or the PC (service mode).

Service mode: hold the button USR for three seconds from the reset on, or leave a file named `service` on the drive
(`judder deploy --service`). Then the drive is writable from the PC, as on a fresh board, and the firmware still runs.
CircuitPython only; runs before USB starts, after a hard reset (circuitpython:main.c).

The way back out is never locked: in doubt the PC gets the drive, safe mode does not run this file, and the button asks
the board, not the drive.
"""

import os

BUTTON = "BUTTON_USR"  # of the Swan; a board without one has the file


def button_pressed():
    import board
    import digitalio

    if not hasattr(board, BUTTON):
        return False
    button = digitalio.DigitalInOut(getattr(board, BUTTON))
    button.switch_to_input(pull=digitalio.Pull.UP)
    pressed = not button.value
    button.deinit()
    return pressed


def own_the_drive():
    try:
        import storage
    except ImportError:  # MicroPython: the firmware always owns it
        return
    try:
        service = "service" in os.listdir() or button_pressed()
    except Exception as error:  # a board that cannot be asked must stay open to the PC
        print("boot: %s; service mode" % error)
        service = True
    if not service:
        storage.remount("/", readonly=False)
    print("service mode: the PC owns the drive" if service else "normal mode: the firmware owns the drive")


own_the_drive()
