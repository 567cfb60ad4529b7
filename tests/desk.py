"""An emulated board on a desk for the tests of whatever talks to a board over USB."""

from contextlib import contextmanager

from judder.console import Console
from judder.deploy import firmware
from judder.emulator.bench import Bench
from judder.emulator.desk import Desk
from judder.emulator.machine import Machine
from judder.emulator.notecard import WebResponse
from judder.emulator.swan import Swan
from judder.emulator.usb import UsbPort


def answer(request):
    return WebResponse(200)


class DeskOfBench(Desk):
    """A desk with the whole bench on it."""

    def __init__(self, bench):
        super().__init__(bench.swan, bench.swan.usb)
        self.bench = bench


def full_desk(folder, drive=None, send=answer, **options):
    """A board with sensor and Notecard, on virtual time; not yet switched on."""
    return DeskOfBench(Bench(Machine.demo(), send, usb=UsbPort(folder / "swan"), drive=drive, **options))


def bare_desk(clock, bus, folder, **options):
    """A board with nothing on its bus; not yet switched on."""
    usb = UsbPort(folder / "swan")
    return Desk(Swan(clock, bus, usb=usb, **options), usb)


@contextmanager
def desks():
    """Gives what switches a desk on; in the end all are switched off, and none may have failed."""
    made = []

    def switch_on(desk):
        made.append(desk.__enter__())
        return desk

    yield switch_on
    for desk in made:
        desk.__exit__(None, None, None)
        assert desk.error is None


def install(drive):
    """The firmware onto a drive that is nobody's yet."""
    for path, data in firmware().items():
        (drive / path).parent.mkdir(parents=True, exist_ok=True)
        (drive / path).write_bytes(data)


@contextmanager
def console_of(desk):
    """The board's console, as judder's own commands use it."""
    with Console(str(desk.wait_for_port().resolve())) as console:  # by this name mpremote does not poll
        yield console
