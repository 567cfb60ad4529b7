"""The child's end of the stream to the bench (see judder.emulator.stream)."""

import os
import struct

_request = struct.Struct("<BBHH")
_reply = struct.Struct("<BH")
_u64 = struct.Struct("<Q")
_read_fd = _write_fd = -1
_INTERRUPTED = 3  # somebody has pressed Ctrl-C on the console
_TRANSFER = ord("T")
usb_is_up = False  # from the end of boot.py on
running_code = False  # then Ctrl-C interrupts; otherwise it is a character like others


def attach(read_fd, write_fd):
    global _read_fd, _write_fd
    _read_fd, _write_fd = read_fd, write_fd


def call(op, address=0, written=b"", read_length=0):
    """One request and its reply: (status, bytes). The bench going away ends this interpreter.

    Raises KeyboardInterrupt when the request is done and Ctrl-C has come in.
    """
    if op != _TRANSFER:
        address = running_code  # tells whether Ctrl-C may interrupt
    try:
        os.write(_write_fd, _request.pack(op, address, len(written), read_length) + written)
        data = os.read(_read_fd, 65536)
        while data and len(data) < 3 + _reply.unpack_from(data)[1]:
            data += os.read(_read_fd, 65536)
    except OSError:
        data = b""
    if not data:
        os._exit(0)
    if data[0] == _INTERRUPTED:
        raise KeyboardInterrupt
    return data[0], data[3:]


def now_ns():
    return _u64.unpack(call(ord("N"), read_length=8)[1])[0]


def sleep_ms(duration_ms):
    call(ord("S"), written=_u64.pack(duration_ms))


def drive_is_ours():
    return call(ord("O"), read_length=1)[1] == b"\x01"


def own_drive(ours):
    call(ord("O"), written=bytes([ours]))


class Console:
    """sys.stdout: what the board's USB serial port would show; and what comes in there."""

    def __init__(self):
        self._waiting = b""
        self.boot_out = ""

    def write(self, text):
        if not usb_is_up:
            self.boot_out += text
        if text:
            data = text.encode()
            for start in range(0, len(data), 32768):
                call(ord("C"), written=data[start : start + 32768])
        return len(text)

    def flush(self):
        pass

    def send(self, data):
        """Bytes of the REPL's protocol, which are no lines of text."""
        call(ord("K"), written=data)

    def byte(self):
        """Wait for the next byte that comes in."""
        while not self._waiting:
            self._waiting = call(ord("I"), read_length=256)[1]
        first = self._waiting[0]
        self._waiting = self._waiting[1:]
        return first
