"""CIRCUITPY as the board's code sees it: `os` and `open` on the bench's folder.

Error texts and what is missing are CircuitPython's (no ilistdir, no mount); the drive is writable for the PC or for
the code, never for both. Each step of a change is told to the bench, which may cut the power at it. What a step has
written to the folder stays written; the ring's file, where the bench has put one, lies on its flash, behind the cache.
"""

import builtins
import importlib.machinery
import os
import sys
import types

import _bench
from _flash_file import FlashFile

SECTOR = 512
_TEXTS = {
    2: "No such file/directory",
    17: "File exists",
    20: "Not a directory",
    21: "Is a directory",
    28: "No space left on device",
    30: "Read-only filesystem",
    39: "Directory not empty",
}
_DIRECTORY, _FILE = 0x4000, 0x8000
_CUT = b"\x01"
_TEAR = b"\x02"

_root = ""
_folder = "/"
_capacity = 0
_ring = None
_mounted = ""
_open = builtins.open


def attach(root, capacity, ring, mounted, names):
    """Make `os` and `open` those of the board whose drive is the folder `root`; `names` are further members of os.

    `ring` is the file that lies on the flash (name, first_block, bytes), if there is one; `mounted` is a folder for
    what the firmware mounts.
    """
    global _root, _capacity, _ring, _mounted
    _root, _capacity, _ring, _mounted = root, capacity, ring, mounted
    module = types.ModuleType("os")
    for function in (chdir, getcwd, listdir, mkdir, remove, rename, rmdir, stat, statvfs, sync):
        setattr(module, function.__name__, function)
    module.unlink = remove
    module.sep = "/"
    for name, value in names.items():
        setattr(module, name, value)
    sys.modules["os"] = module
    builtins.open = open


def _error(number):
    return OSError(number, _TEXTS.get(number, "Input/output error"))


def _host(path):
    full = path if path.startswith("/") else _folder.rstrip("/") + "/" + path
    return os.path.normpath(_root + full)


def _ask(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        raise _error(error.errno) from None


def _change(what, call, *arguments):
    """Carry out one step that changes the drive."""
    if not _bench.drive_is_ours():
        raise _error(30)
    if _step(what):
        _lose_power()
    return _ask(call, *arguments)


def _step(what):
    """Tell the bench; empty to go on, else the power goes: _CUT before the step, _TEAR in the midst of it."""
    return _bench.call(ord("W"), written=what.encode(), read_length=1)[1]


def _lose_power():
    """The bench ends this interpreter."""
    _bench.call(ord("P"))


def chdir(path):
    global _folder
    _ask(os.stat, _host(path))
    _folder = "/" + os.path.relpath(_host(path), _root) if _host(path) != _root else "/"


def getcwd():
    return _folder


def _is_ring(path):
    return _ring is not None and _host(path) == _host("/" + _ring["name"])


def listdir(path=""):
    on_flash = [_ring["name"]] if _ring is not None and _host(path) == _host("/") else []
    return sorted(_ask(os.listdir, _host(path)) + on_flash)


def stat(path):
    if _is_ring(path):
        return (_FILE, 0, 0, 0, 0, 0, _ring["bytes"], 0, 0, 0)
    found = _ask(os.stat, _host(path))
    mode = _DIRECTORY if os.path.isdir(_host(path)) else _FILE
    time_s = int(found.st_mtime)
    return (mode, 0, 0, 0, 0, 0, found.st_size if mode == _FILE else 0, time_s, time_s, time_s)


def mount(blocks, path):
    """Have imports find what is on a volume: the bench reads its FAT, and puts the files into a folder."""
    if not os.path.isdir(_host(path)):
        raise RuntimeError("Mount point directory missing")
    size, count = blocks.ioctl(5, 0), blocks.ioctl(4, 0)
    block = bytearray(size)
    with _open(_mounted + ".img", "wb") as image:
        for number in range(count):
            blocks.readblocks(number, block)
            image.write(block)
    if _bench.call(ord("m"), read_length=1)[1] != b"\x01":
        raise OSError(19, "No such device")  # no filesystem on it

    def find(entry):
        if entry != path:
            raise ImportError
        return importlib.machinery.FileFinder(_mounted, (importlib.machinery.SourceFileLoader, [".py"]))

    sys.path_hooks.insert(0, find)


def statvfs(path):
    sectors = _capacity // SECTOR
    free = _free() // SECTOR
    return (SECTOR, SECTOR, sectors, free, free, 0, 0, 0, 0, 255)


def sync():
    _bench.call(ord("Y"))


def mkdir(path):
    _change("mkdir", os.mkdir, _host(path))


def remove(path):
    if _bench.drive_is_ours():
        _ask(os.stat, _host(path))  # what is not there changes nothing
    _change("remove", os.remove, _host(path))


def rmdir(path):
    _change("rmdir", os.rmdir, _host(path))


def rename(old, new):
    if os.path.exists(_host(new)):  # FAT does not replace
        raise _error(17)
    _change("rename", os.rename, _host(old), _host(new))


def _free():
    used = 0
    for folder, folders, files in os.walk(_root):
        sizes = [os.path.getsize(os.path.join(folder, name)) for name in files]
        used += sum(-(-size // SECTOR) * SECTOR for size in sizes) + SECTOR * len(folders)
    return max(0, _capacity - used)


class _Blocks:
    """The flash, as MicroPython's block devices are."""

    def readblocks(self, number, buffer):
        self._choose(number)
        buffer[:] = _bench.call(ord("V"), read_length=len(buffer))[1]

    def writeblocks(self, number, buffer):
        self._choose(number)
        _bench.call(ord("D"), written=bytes(buffer))

    def _choose(self, number):
        _bench.call(ord("H"), written=number.to_bytes(4, "little"))


def open(path, mode="r", *_, **__):
    if _is_ring(path):
        if mode not in ("rb", "r+b"):
            raise ValueError(f"{path} is opened with {mode}, which is not modelled")
        return FlashFile(_Blocks(), _ring["first_block"], _ring["bytes"])
    if os.path.isdir(_host(path)):
        raise _error(21)
    if not set(mode) & set("wax+"):
        return _ask(_open, _host(path), mode)
    host_mode = mode.replace("b", "").replace("t", "") + "b"
    if "r" in mode:  # neither table nor directory change
        if not _bench.drive_is_ours():
            raise _error(30)
        return _Written(_ask(_open, _host(path), host_mode, 0), "b" in mode)
    return _Written(_change("open", _open, _host(path), host_mode, 0), "b" in mode)


class _Written:
    """A file open for writing: each write is a step, which a power cut may leave half done."""

    def __init__(self, file, binary):
        self._file = file
        self._binary = binary
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def flush(self):
        pass

    def read(self, size=-1):
        data = self._file.read(size)
        return data if self._binary else data.decode()

    def readinto(self, buffer):
        return self._file.readinto(buffer)

    def write(self, data):
        data = bytes(data) if self._binary else data.encode()
        if self._growth(len(data)) > _free():
            raise _error(28)
        fate = _step("write" if self._grows(len(data)) else "write in place")
        if fate == _CUT:
            _lose_power()
        if fate == _TEAR:
            self._file.write(data[: len(data) // 2])
            _lose_power()
        return self._file.write(data)

    def _grows(self, length):
        return self._file.tell() + length > os.fstat(self._file.fileno()).st_size

    def _growth(self, length):
        size = os.fstat(self._file.fileno()).st_size
        end = max(size, self._file.tell() + length)
        return (-(-end // SECTOR) + size // -SECTOR) * SECTOR
