"""CircuitPython's digitalio: pins that nobody drives, and the button USR, which the bench may press."""

import _bench


class Direction:
    INPUT = "input"
    OUTPUT = "output"


class Pull:
    UP = "up"
    DOWN = "down"


class DigitalInOut:
    def __init__(self, pin):
        self._pin = pin
        self.direction = Direction.INPUT
        self.pull = None

    def deinit(self):
        pass

    def switch_to_input(self, pull=None):
        self.pull = pull

    @property
    def value(self):
        pressed = self._pin == "PC13" and _bench.call(ord("B"), read_length=1)[1] == b"\x01"
        return self.pull == Pull.UP and not pressed
