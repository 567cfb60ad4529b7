"""The board's console as circuitpython:shared/runtime/pyexec.c has it: friendly and raw REPL, and raw paste.

In the subset that CPython and MicroPython share: it serves both.
"""

CTRL_A, CTRL_B, CTRL_C, CTRL_D, CTRL_E = 1, 2, 3, 4, 5
WINDOW = 128  # half of the board's input buffer: what may be sent before it asks for more
BACKSPACES = (8, 127)


class Repl:
    """`console` has `byte`, which waits for one, and `send`. `execute(source, interactive, before_error)` runs code and
    prints what it raises.

    `run` returns when Ctrl-D asks for a soft reboot; `raw` says in which mode that was.
    """

    def __init__(self, console, banner, execute, raw=False):
        self.raw = raw
        self._console = console
        self._banner = banner
        self._execute = execute

    def run(self):
        while True:
            if (self._run_raw if self.raw else self._run_friendly)():
                return
            self.raw = not self.raw

    def _run_raw(self):
        """True for a soft reboot, False for the friendly REPL."""
        self._console.send(b"raw REPL; CTRL-B to exit\r\n>")
        line = b""
        while True:
            byte = self._console.byte()
            if byte == CTRL_A and line == bytes([CTRL_E]) + b"A":
                self._paste()
            elif byte == CTRL_A:
                self._console.send(b"raw REPL; CTRL-B to exit\r\n>")
            elif byte == CTRL_B:
                return False
            elif byte == CTRL_D:
                self._console.send(b"OK")
                if not line:
                    self._console.send(b"\r\n")
                    return True
                self._run(line)
            elif byte != CTRL_C:
                line += bytes([byte])
                continue
            line = b""

    def _paste(self):
        self._console.send(b"R\x01" + bytes([WINDOW & 255, WINDOW >> 8, 1]))
        source = bytearray()
        while True:
            byte = self._console.byte()
            if byte in (CTRL_C, CTRL_D):
                break
            source.append(byte)
            if len(source) % WINDOW == 0:
                self._console.send(b"\x01")
        self._console.send(b"\x04")
        self._run(bytes(source) if byte == CTRL_D else b"raise KeyboardInterrupt")

    def _run(self, source):
        self._execute(source.decode(), False, lambda: self._console.send(b"\x04"))
        self._console.send(b"\x04>")

    def _run_friendly(self):
        """True for a soft reboot, False for the raw REPL."""
        self._console.send(b"\r\n" + self._banner.encode() + b"\r\n>>> ")
        line = b""
        while True:
            byte = self._console.byte()
            if byte == CTRL_A:
                return False
            if byte == CTRL_D and not line:
                self._console.send(b"\r\n")
                return True
            if byte == CTRL_B:
                self._console.send(b"\r\n" + self._banner.encode() + b"\r\n")
            elif byte in BACKSPACES:
                if line:
                    line = line[:-1]
                    self._console.send(b"\x08 \x08")
                continue
            elif byte == 13:
                self._console.send(b"\r\n")
                if line.strip():
                    self._execute(line.decode(), True, lambda: None)
            elif byte == CTRL_C:
                self._console.send(b"\r\n")
            elif byte >= 32:
                line += bytes([byte])
                self._console.send(bytes([byte]))
                continue
            else:
                continue
            line = b""
            self._console.send(b">>> ")
