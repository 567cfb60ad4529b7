"""The interpreter that plays the Swan: CPython made to look like CircuitPython 10 to the firmware.

Started as a script in a child process, isolated from its surroundings (`python -I -S`), with the stream's two file
descriptors, the board's folders and a file that says how it was started. The firmware and its libraries run from their
own files, unmodified. What CircuitPython has and CPython has not comes from modules/; time, garbage collection and
random numbers are the bench's.

What runs when is circuitpython:main.c: safemode.py in safe mode, else boot.py; then code.py or main.py; with a console,
the REPL once that has ended or was interrupted. After a soft reboot the first two are skipped.
"""

import gc
import json
import os
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

START_FILES = ("code.txt", "code.py", "main.py", "main.txt")
CTRL_D = 4
_STDLIB = (".zip", "lib-dynload", f"python{sys.version_info[0]}.{sys.version_info[1]}")


class Board:
    """The board after a reset. `start` says how it was started: see Swan._start."""

    def __init__(self, read_fd: int, write_fd: int, device: str, boot: str, start: dict[str, Any]) -> None:
        self.device = device
        self.boot = boot
        self.start = start
        self._become_swan(read_fd, write_fd)

    def run(self) -> None:
        """From reset on. Without a console, what the firmware raises ends the interpreter."""
        if not self.start["soft"]:
            self._boot()
            if self.start["console"]:
                self._write_boot_out()
        self._bench.usb_is_up = True
        self._bench.call(ord("U"))
        if not self.start["console"]:
            self._run_file(self.device, "main.py")
            return
        if not self.start["raw"]:
            self._run_code()
        self._run_repl()

    def _boot(self) -> None:
        safe_mode = self.start["safe_mode"]
        if not safe_mode:
            self._guarded(self._run_file, os.path.dirname(self.boot), os.path.basename(self.boot))  # noqa: PTH119, PTH120
        elif safe_mode != "USER":
            self._guarded(self._run_file, self.device, "safemode.py")

    def _write_boot_out(self) -> None:
        version = ".".join(map(str, self.start["version"]))
        told = f"Adafruit CircuitPython {version} on 2026-08-21; {os.uname().machine}\nBoard ID:{self.start['board']}\n"
        (Path(self.start["drive"]) / "boot_out.txt").write_text(told + self._console.boot_out)

    def _run_code(self) -> None:
        if self.start["safe_mode"]:
            print("Running in safe mode! Not running saved code.")
            print("You are in safe mode because:", self.start["safe_mode"])
        else:
            found = [name for name in START_FILES if self._exists(self.device, name)]
            if found:
                self._guarded(self._run_file, self.device, found[0])
            print("\nCode done running.")
        print("\nPress any key to enter the REPL. Use CTRL-D to reload.")
        if self._console.byte() == CTRL_D:
            self._soft_reboot(raw=False)

    def _run_repl(self) -> None:
        from _repl import Repl  # type: ignore[import-not-found]

        self._bench.call(ord("Z"))  # auto-reload rests while the REPL is in use
        names: dict[str, Any] = {"__name__": "__main__"}
        self._guarded(self._run_file, self.device, "repl.py")

        def execute(source: str, interactive: bool, before_error: Callable[[], None]) -> None:
            try:
                code = compile(source, "<stdin>", "single" if interactive else "exec")
                self._run(code, names)
            except BaseException as error:  # noqa: BLE001
                before_error()
                self._print_exception(error)
            else:
                before_error()

        repl = Repl(self._console, f"{sys.version}; {os.uname().machine}", execute, raw=self.start["raw"])
        repl.run()
        print("soft reboot")
        self._soft_reboot(raw=repl.raw)

    def _soft_reboot(self, *, raw: bool) -> None:
        """The bench ends this interpreter and starts another."""
        self._bench.call(ord("L"), written=bytes([raw]))

    def _run_file(self, folder: str, name: str) -> None:
        """Run a file of the board as the main module, if it is there."""
        if self._exists(folder, name):
            code = compile((Path(folder) / name).read_bytes(), name, "exec")
            self._run(code, {"__name__": "__main__", "__file__": name})

    def _run(self, code: types.CodeType, names: dict[str, Any]) -> None:
        self._bench.running_code = True
        try:
            exec(code, names)  # noqa: S102
        finally:
            self._bench.running_code = False

    def _guarded(self, run: Callable[..., None], *arguments: str) -> None:
        if not self.start["console"]:
            run(*arguments)
            return
        try:
            run(*arguments)
        except SystemExit:
            pass
        except BaseException as error:  # noqa: BLE001  # the board prints it and goes on
            self._print_exception(error)

    def _print_exception(self, error: BaseException) -> None:
        """As CircuitPython prints it: no source lines, paths of the drive, every OSError by that name."""
        ours = str(Path(__file__).parent)
        print("Traceback (most recent call last):")
        for frame in traceback.extract_tb(error.__traceback__):
            if not frame.filename.startswith(ours):
                path = frame.filename.removeprefix(self.start["drive"] + "/")
                print(f'  File "{path}", line {frame.lineno}, in {frame.name}')
        name = "OSError" if isinstance(error, OSError) else type(error).__name__
        print(f"{name}: {error}")

    @staticmethod
    def _exists(folder: str, name: str) -> bool:
        return (Path(folder) / name).is_file()

    def _become_swan(self, read_fd: int, write_fd: int) -> None:
        if self.start["packages"]:
            self._load_numpy()
        modules = Path(__file__).parent / "modules"
        stdlib = (path for path in sys.path if path.endswith(_STDLIB))
        sys.path[:] = [str(modules), self.device, str(Path(self.device) / "lib"), *stdlib]
        sys.dont_write_bytecode = True
        version = tuple(self.start["version"])
        implementation = dict(vars(sys.implementation), name="circuitpython", version=version, _mpy=262)
        sys.implementation = types.SimpleNamespace(**implementation)  # type: ignore[assignment]
        sys.version = "3.4.0; Adafruit CircuitPython " + ".".join(map(str, version))
        import _bench  # type: ignore[import-not-found]

        self._bench = _bench
        _bench.attach(read_fd, write_fd)
        self._take_the_boards_place()

    def _load_numpy(self) -> None:
        """What modules/ulab stands on. It takes 0.1 s, so only a board with a model pays."""
        sys.path.append(self.start["packages"])
        import numpy  # noqa: F401

        sys.path.pop()

    def _take_the_boards_place(self) -> None:
        import _drive  # type: ignore[import-not-found]

        bench = self._bench
        machine = f"{self.start['board']} with STM32L4R5ZI"
        names = {
            "urandom": lambda size: bench.call(ord("R"), read_length=size)[1],
            "uname": lambda: types.SimpleNamespace(sysname="stm32l4r5xx", machine=machine),
        }
        os.uname = names["uname"]  # type: ignore[assignment]
        sys.modules["time"] = _time(bench)
        sys.modules["gc"] = _gc(bench)
        _drive.attach(self.start["drive"], self.start["capacity"], self.start["ring"], self.start["mounted"], names)
        import board
        import microcontroller
        import supervisor

        board.board_id = self.start["board"]
        reason = getattr(microcontroller.ResetReason, self.start["reset_reason"])
        microcontroller.cpu.reset_reason = reason
        supervisor.runtime.safe_mode_reason = self.start["safe_mode"] or "NONE"  # type: ignore[assignment]
        self._console = bench.Console()
        sys.stdout = self._console


def _time(bench: types.ModuleType) -> types.ModuleType:
    module = types.ModuleType("time")
    module.sleep = lambda seconds: bench.sleep_ms(int(seconds * 1000 + 0.5))  # type: ignore[attr-defined]
    module.monotonic_ns = bench.now_ns  # type: ignore[attr-defined]
    module.monotonic = lambda: bench.now_ns() / 1e9  # type: ignore[attr-defined]
    return module


def _gc(bench: types.ModuleType) -> types.ModuleType:
    module = types.ModuleType("gc")
    module.collect = lambda: bench.call(ord("G"))  # type: ignore[attr-defined]
    module.enable, module.disable = gc.enable, gc.disable  # type: ignore[attr-defined]
    return module


if __name__ == "__main__":
    arguments = sys.argv
    start = json.loads(Path(arguments[5]).read_bytes())
    Board(int(arguments[1]), int(arguments[2]), arguments[3], arguments[4], start).run()
