"""CircuitPython's digitalio: pins that nobody presses or drives."""


class Direction:
    INPUT = "input"
    OUTPUT = "output"


class Pull:
    UP = "up"
    DOWN = "down"


class DigitalInOut:
    def __init__(self, pin):
        self.direction = Direction.INPUT
        self.pull = None

    def deinit(self):
        pass

    def switch_to_input(self, pull=None):
        self.pull = pull

    @property
    def value(self):
        return self.pull == Pull.UP
