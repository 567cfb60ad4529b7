"""Makes a real MicroPython play the board: what its VM lacks is supplied here, libraries and firmware stay as they are.

Runs on MicroPython's unix port and in its wasm build. Time, random numbers, the I2C bus and the console are the
bench's, over the stream of judder.emulator.stream; `attach` is given a function that makes one exchange on it.
"""

import builtins
import gc
import io
import os
import struct
import sys

_EIO = 5
_INTERRUPTED = 3  # somebody has pressed Ctrl-C on the console
_PERIOD = 1 << 30  # of ticks, as on a small board

_exchange = None
_open = open
_running_code = False  # then Ctrl-C interrupts; otherwise it is a character like others
_header = bytearray(6)
_eight = bytearray(8)


def _call(op, address=0, written=b"", read_length=0, into=None):
    """One exchange: returns the status; `into` takes the bytes that come back.

    Allocates next to nothing: the bench is not to fill the heap that the firmware is measured in.
    """
    if op != "T":
        address = int(_running_code)
    struct.pack_into("<BBHH", _header, 0, ord(op), address, len(written), read_length)
    status = _exchange(_header, written, into)
    if status == _INTERRUPTED:
        raise KeyboardInterrupt
    return status


def fill(buffer, data, start):
    """Put data[start:] into a bytearray, or into a view of an array('h')."""
    length = len(data) - start
    if len(buffer) == length:
        for i in range(length):
            buffer[i] = data[start + i]
        return
    for i in range(length // 2):
        value = data[start + 2 * i] | data[start + 2 * i + 1] << 8
        buffer[i] = value - 65536 if value > 32767 else value


class _Shadow:
    """A module with some of its names replaced."""

    def __init__(self, module, **names):
        self._module = module
        for name in names:
            setattr(self, name, names[name])

    def __getattr__(self, name):
        return getattr(self._module, name)


# --- time, memory, chance -----------------------------------------------------------------------------------------


def _now_us():
    _call("N", 0, b"", 8, _eight)
    return int.from_bytes(_eight, "little") // 1000


def _sleep_ms(milliseconds):
    struct.pack_into("<Q", _eight, 0, int(milliseconds))
    _call("S", 0, _eight)


def _sleep(seconds):
    _sleep_ms(seconds * 1000 + 0.5)


def _ticks_us():
    return _now_us() % _PERIOD


def _ticks_ms():
    return _now_us() // 1000 % _PERIOD


def _ticks_diff(end, start):
    return (end - start + _PERIOD // 2) % _PERIOD - _PERIOD // 2


def _collect():
    """Tell the bench the heap in use before and after: what was needed at most, and what stays."""
    before = gc.mem_alloc()
    gc.collect()
    struct.pack_into("<II", _eight, 0, before, gc.mem_alloc())
    _call("G", 0, _eight)


def _urandom(size):
    data = bytearray(size)
    _call("R", 0, b"", size, data)
    return bytes(data)


# --- machine ------------------------------------------------------------------------------------------------------


class _I2C:
    def __init__(self, number, *, freq=400000):
        _call("F", 0, freq.to_bytes(4, "little"))

    def scan(self):
        return [address for address in range(0x08, 0x78) if not _call("T", address)]

    def writeto(self, address, buffer, stop=True):
        if _call("T", address, buffer):
            raise OSError(_EIO)
        return len(buffer)

    def readfrom_into(self, address, buffer, stop=True):
        if _call("T", address, b"", _bytes_in(buffer), buffer):
            raise OSError(_EIO)


def _bytes_in(buffer):
    """A bytearray's length, or twice that of a view of an array('h')."""
    return len(buffer) if type(buffer) is bytearray or not _is_wide(buffer) else 2 * len(buffer)


def _is_wide(view):
    """Whether a view's elements are 16 bits: they go beyond a byte, or take what no byte does."""
    first = view[0]
    try:
        view[0] = -1
        return view[0] == -1
    finally:
        view[0] = first


class _Pin:
    """Named by note-python."""


class _Machine:
    I2C = _I2C
    Pin = _Pin

    @staticmethod
    def reset():
        _call("Q")
        while True:
            _sleep_ms(1000)


# --- flash --------------------------------------------------------------------------------------------------------


class _Flash:
    """The drive's blocks, as MicroPython's VfsFat asks for them; what is not 0 is an error."""

    def readblocks(self, number, buffer):
        self._choose(number)
        return _call("V", 0, b"", len(buffer), buffer)

    def writeblocks(self, number, buffer):
        self._choose(number)
        return _call("D", 0, buffer)

    def ioctl(self, command, argument):
        if command == 3:
            _sync()
        return {4: 2048, 5: 512}.get(command, 0)

    @staticmethod
    def _choose(number):
        struct.pack_into("<I", _eight, 0, number)
        _call("H", 0, memoryview(_eight)[:4])


class _FlashModule:
    bdev = _Flash()


def _open_on_flash(ring, modules):
    """An `open` for which the file `ring` lies on the flash: in a FAT, or in a plain run of blocks without VfsFat."""
    opened = None

    def mount():
        import vfs

        if not hasattr(vfs, "VfsFat"):
            flash_file = run(modules + "/_flash_file.py", "_flash_file")["FlashFile"]
            return lambda mode: flash_file(_FlashModule.bdev, ring["first_block"], ring["bytes"])
        vfs.mount(vfs.VfsFat(_FlashModule.bdev), "/flash")
        return lambda mode: _open("/flash/" + ring["name"], mode)

    def open(path, mode="r", **options):
        nonlocal opened
        if path.lstrip("/") != ring["name"]:
            return _open(path, mode, **options)
        opened = opened or mount()
        return opened(mode)

    return open


def _sync():
    """Of the boards' ports; the PC's has none."""
    _call("Y")


class _Uname:
    sysname = "emulated"
    machine = "emulated board with a real MicroPython"


def _print(*values, sep=" ", end="\n"):
    text = sep.join([str(value) for value in values]) + end
    _call("C", 0, text.encode())


def attach(exchange, device):
    """Become the board whose files are in `device`."""
    global _exchange
    _exchange = exchange
    sys.path[:] = [device, device + "/lib"]
    import time

    names = {
        "sleep": _sleep,
        "sleep_ms": _sleep_ms,
        "ticks_us": _ticks_us,
        "ticks_ms": _ticks_ms,
        "ticks_diff": _ticks_diff,
        "time": lambda: _now_us() // 1000000,
    }
    sys.modules["time"] = sys.modules["utime"] = _Shadow(time, **names)  # note-python asks for utime
    sys.modules["gc"] = _Shadow(gc, collect=_collect)
    uname = getattr(os, "uname", _Uname)
    sys.modules["os"] = _Shadow(os, uname=uname, urandom=_urandom, sync=_sync)
    sys.modules["machine"] = _Machine
    sys.modules["flashbdev"] = _FlashModule
    builtins.print = _print


# --- from reset on ------------------------------------------------------------------------------------------------


class _Console:
    """What comes in at the board's USB port, and the protocol that goes out there."""

    def byte(self):
        _eight[0] = 0  # which nobody types
        while not _eight[0]:
            _call("I", 0, b"", 1, _eight)
        return _eight[0]

    def send(self, data):
        _call("K", 0, data)


def run(path, name):
    """Run a file as a module called `name`; returns its names."""
    names = {"__name__": name}
    with open(path) as file:
        _execute(compile(file.read(), path, "exec"), names)
    return names


def _execute(code, names):
    global _running_code
    _running_code = True
    try:
        exec(code, names)
    finally:
        _running_code = False


def boot(boot, main, start, modules):
    """boot.py once, then main.py, as after a hard reset; with a console the REPL (in the folder `modules`) behind it.

    Without one, what escapes main is the last thing the console shows.
    """
    if start["ring"]:
        builtins.open = _open_on_flash(start["ring"], modules)
    if start["console"]:
        _run_on_a_desk(boot, main, start, modules + "/_repl.py")
        return
    try:
        run(boot, "boot")
        run(main, "__main__")
    except Exception as error:
        _print_error(error)
        print("the firmware ended:", repr(error))
        raise


def _run_on_a_desk(boot, main, start, repl):
    if not start["soft"]:
        _attempt(boot, "boot")
    _call("U")
    if not start["raw"]:
        _attempt(main, "__main__")
    names = {"__name__": "__main__"}

    def execute(source, interactive, before_error):
        try:
            _execute(compile(source, "<stdin>", "single" if interactive else "exec"), names)
        except BaseException as error:
            before_error()
            _print_error(error)
        else:
            before_error()

    banner = "MicroPython %s; %s" % (".".join([str(part) for part in sys.implementation.version[:3]]), _Uname.machine)
    loop = run(repl, "_repl")["Repl"](_Console(), banner, execute, start["raw"])
    loop.run()
    print("MPY: soft reboot")
    _call("L", 0, bytes([loop.raw]))


def _attempt(path, name):
    try:
        os.stat(path)
    except OSError:
        return
    try:
        run(path, name)
    except BaseException as error:
        _print_error(error)


def _print_error(error):
    text = io.StringIO()
    sys.print_exception(error, text)
    print(text.getvalue(), end="")
