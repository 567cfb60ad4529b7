"""Updates by file: two slots for the firmware's code and two for the model, beside the base that was put on the drive.

A slot is a file that `judder deploy` or an image has made (docs/updates.md). It is written in place and in whole
sectors, and never closed: whatever changes a FAT's table or directory may cost the whole drive when the power goes.
Its header names what it holds and how that has fared; guards keep both from pages that other files share.

What has arrived whole is on trial first: each start counts, and after TRIES of them without proof the slot is given up
and what was before is used again. The base, which no update touches, is what is left in the end.

Not part of any update itself: what this file does, every version has to get along with.
"""

import os
import struct
import sys
from binascii import crc32

MODEL, CODE = 1, 2  # kinds
MANIFEST = "manifest.json"
MODEL_FILE = "model.bin"
NAMES = {MODEL: ("model-a.bin", "model-b.bin"), CODE: ("code-a.bin", "code-b.bin")}
FOLDER = "/slot"
EMPTY, LOADING, TRIAL, PROVEN, FAILED = range(5)  # states
TRIES = 3  # starts
HEADER_AT = 3584  # sector 7: no page reaches from there to a neighbour, wherever in a page the file begins
CONTENT_AT = 8192
GUARD_BYTES = 3584
SECTOR_BYTES = 512
PIECE_BYTES = 1024
VERSION_BYTES = 44
MAGIC = b"VS\xc1\x7f"
HEADER = "<4sBBBxIIIIII44s"  # magic, kind, state, tries; generation, base, length, checksum, offer, done; version

running = {MODEL: None, CODE: None}  # the slots in use
_open_files = {}
_written = []  # names of those whose files must not be closed any more


class Slot:
    """One slot. `length`, `checksum` (CRC-32) and `version` are of its content, `done` bytes of which are there.

    `generation` grows with each update of a kind; `base` is the base that it was made for, `offer` what the Notecard
    called it. Raises OSError when there is no such file.
    """

    def __init__(self, name):
        self.name = name
        if name not in _open_files:
            _open_files[name] = _opened(name)
        self._file, self.writable = _open_files[name]
        self.capacity = self._file.seek(0, 2) - CONTENT_AT - GUARD_BYTES
        self.kind = self.state = self.tries = 0
        self.generation = self.base = self.length = self.checksum = self.offer = self.done = 0
        self.version = ""
        header = self._read(HEADER_AT, SECTOR_BYTES)
        size = struct.calcsize(HEADER)
        known = header[:4] == MAGIC and header[size : size + 4] == struct.pack("<I", crc32(header[:size]))
        if known:
            fields = struct.unpack(HEADER, header[:size])
            self.kind, self.state, self.tries = fields[1:4]
            self.generation, self.base, self.length, self.checksum, self.offer, self.done = fields[4:10]
            self.version = str(fields[10].rstrip(b"\0"), "utf-8")

    def keep(self):
        """Write the header, and wait until it is written."""
        header = struct.pack(
            HEADER,
            MAGIC,
            self.kind,
            self.state,
            self.tries,
            self.generation,
            self.base,
            self.length,
            self.checksum,
            self.offer,
            self.done,
            self.version.encode(),
        )
        sector = bytearray(SECTOR_BYTES)
        sector[: len(header)] = header
        struct.pack_into("<I", sector, len(header), crc32(header))
        self._write(HEADER_AT, sector)

    def put(self, data):
        """Append to the content: whole sectors, but at its end. Safe when it returns; the header is not kept."""
        rest = len(data) % SECTOR_BYTES
        padded = bytes(data) + bytes(SECTOR_BYTES - rest) if rest else data
        self._write(CONTENT_AT + self.done, padded)
        self.done += len(data)

    def is_whole(self):
        """Whether its content is that of which it has the checksum."""
        found = at = 0
        while at < self.length:
            piece = self._read(CONTENT_AT + at, min(PIECE_BYTES, self.length - at))
            found = crc32(piece, found)
            at += len(piece)
        return found & 0xFFFFFFFF == self.checksum and 0 < self.length <= self.capacity

    def content(self):
        return Content(self._file, self.length)

    def begin(self):
        """Use it: on trial, this start counts."""
        if self.state == TRIAL:
            self.tries += 1
            self.keep()
        running[self.kind] = self

    def end(self, state):
        """It is PROVEN or FAILED."""
        self.state = state
        self.keep()

    def _read(self, at, size):
        self._file.seek(at)
        return self._file.read(size)

    def _write(self, at, data):
        _written.append(self.name)
        self._file.seek(at)
        self._file.write(data)
        getattr(os, "sync", self._file.flush)()


def _opened(name):
    """The file, for good, and whether it can be written: not while the PC owns the drive."""
    try:
        return open(name, "r+b"), True
    except OSError:
        return open(name, "rb"), False


class Content:
    """What a slot holds: as a file to read, and as a block device for VfsFat."""

    def __init__(self, file, length):
        self._file = file
        self._length = length
        self._at = 0

    def seek(self, offset, whence=0):
        self._at = offset + (self._length if whence == 2 else 0)
        return self._at

    def read(self, size=-1):
        left = self._length - self._at
        self._file.seek(CONTENT_AT + self._at)
        data = self._file.read(left if size < 0 else max(0, min(size, left)))
        self._at += len(data)
        return data

    def close(self):
        """The file stays open."""

    def readblocks(self, number, buffer):
        self._file.seek(CONTENT_AT + number * SECTOR_BYTES)
        self._file.readinto(buffer)

    def writeblocks(self, number, buffer):
        raise OSError(30)

    def ioctl(self, command, argument):
        return {4: self._length // SECTOR_BYTES, 5: SECTOR_BYTES}.get(command, 0)

    def count(self):
        return self._length // SECTOR_BYTES


def slots(kind):
    """Those of this kind that the drive has."""
    found = []
    for name in NAMES[kind]:
        try:
            found.append(Slot(name))
        except OSError:  # a board that deploy has not yet given any
            pass
    return found


def choose(kind):
    """The newest slot that may be used on this base, and is whole; None: use the base itself."""
    usable = [slot for slot in slots(kind) if slot.kind == kind and slot.state in (TRIAL, PROVEN)]
    present = base(kind) if usable else 0  # read once, and on most boards not at all
    usable = [slot for slot in usable if slot.base == present]
    for slot in sorted(usable, key=lambda slot: -slot.generation):
        if (slot.state == TRIAL and slot.tries >= TRIES) or not slot.is_whole():
            slot.end(FAILED)
        else:
            return slot
    return None


def spare(kind):
    """The slot that the next update goes into: one that is not in use. None when the drive has none to write to."""
    free = [slot for slot in slots(kind) if slot.writable]
    free = [slot for slot in free if running[kind] is None or slot.name != running[kind].name]
    return min(free, key=lambda slot: slot.generation) if free else None


def checksum(path, last=False):
    """CRC-32 of a file, or with `last` the one that it ends with; 0 when there is none."""
    try:
        with open(path, "rb") as file:
            if last:
                file.seek(max(0, file.seek(0, 2) - 4))
                return int.from_bytes(file.read(4), "little")
            found = 0
            piece = file.read(PIECE_BYTES)
            while piece:
                found = crc32(piece, found)
                piece = file.read(PIECE_BYTES)
            return found & 0xFFFFFFFF
    except OSError:
        return 0


def start():
    """As the first thing of all: choose what this start uses."""
    enter(CODE)
    enter(MODEL)
    let_go()


def base(kind):
    """What tells one base of this kind from another: an update is for the one that it was made on."""
    if kind == CODE:
        return checksum(MANIFEST)
    return checksum(MODEL_FILE, True)


def enter(kind):
    """Choose what is used of this kind from now on; of the code, what is imported. Never raises."""
    running[kind] = slot = None
    try:
        slot = choose(kind)
        if slot is not None:
            slot.begin()
            if kind == CODE:
                _mount(slot.content())
                sys.path.insert(0, FOLDER)
    except Exception as error:  # whatever it is, there is the base
        running[kind] = None
        print("what an update has brought is not used: %r" % (error,))
        try:
            if slot is not None and slot.state == TRIAL:
                slot.end(FAILED)
        except OSError:  # in service mode, say
            pass


def code_failed(error):
    """Code of an update has raised `error` before it could work: never again. Does nothing for the base's code."""
    slot = running[CODE]
    if slot is not None and (slot.state == TRIAL or not isinstance(error, MemoryError)):  # which may be the settings'
        print("%s does not start: %r" % (slot.version, error))
        slot.end(FAILED)
        restart()


def end_try():
    """Code on trial has had its time: start anew, which counts."""
    slot = running[CODE]
    if slot is not None and slot.state == TRIAL:
        print("%s has brought nothing to the server: starting anew" % slot.version)
        restart()


def restart():
    try:
        from microcontroller import reset
    except ImportError:
        from machine import reset  # pyright: ignore[reportMissingImports]
    reset()


def let_go():
    """Have this module take no memory, on a board that has no use for it now."""
    if not any(running.values()) and not _written:
        del sys.modules["slots"]


def _mount(blocks):
    try:
        import storage as vfs
    except ImportError:
        import vfs  # pyright: ignore[reportMissingImports]  # MicroPython
    vfs.mount(vfs.VfsFat(blocks), FOLDER, readonly=True)  # pyright: ignore
