"""Who owns the board's drive: the firmware (normal) or the PC (service mode).

Service mode: hold the button USR while the board resets, or leave a file named `service` on the drive. Then the drive
is writable from the PC, as on a fresh board, and the firmware still runs. CircuitPython only; runs before USB starts,
after a hard reset (circuitpython:main.c).
"""

import os


def service_wanted():
    if "service" in os.listdir():
        return True
    import board
    import digitalio

    button = digitalio.DigitalInOut(board.BUTTON_USR)
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
        service = service_wanted()
    except Exception as error:  # a board that cannot be asked must stay open to the PC
        print("boot: %s; service mode" % error)
        service = True
    if not service:
        storage.remount("/", readonly=False)
    print("service mode: the PC owns the drive" if service else "normal mode: the firmware owns the drive")


own_the_drive()
