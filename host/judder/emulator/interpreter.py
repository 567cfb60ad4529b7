"""The interpreter that plays the Swan: CPython made to look like CircuitPython 10 to the firmware.

Started as a script in a child process, isolated from its surroundings (`python -I -S`), with the stream's two file
descriptors and the board's folders. The firmware and its libraries run from their own files, unmodified. What
CircuitPython has and CPython has not comes from modules/; time, garbage collection and random numbers are the bench's.
"""

import gc
import os
import runpy
import sys
import types
from pathlib import Path


def become_swan(read_fd: int, write_fd: int, device: str) -> None:
    """Turn this interpreter into the Swan's."""
    modules = Path(__file__).parent / "modules"
    sys.path[:] = [str(modules), device, str(Path(device) / "lib"), *(p for p in sys.path if p.endswith(_STDLIB))]
    sys.dont_write_bytecode = True
    import _bench  # type: ignore[import-not-found]

    _bench.attach(read_fd, write_fd)
    implementation = dict(vars(sys.implementation), name="circuitpython", version=(10, 3, 1), _mpy=262)
    sys.implementation = types.SimpleNamespace(**implementation)  # type: ignore[assignment]
    sys.version = "3.4.0; Adafruit CircuitPython 10.3.1"
    sys.modules["time"] = _time(_bench)
    sys.modules["gc"] = _gc(_bench)
    os.urandom = lambda size: _bench.call(ord("R"), read_length=size)[1]
    os.uname = lambda: types.SimpleNamespace(sysname="stm32l4r5xx", machine="swan_r5 with STM32L4R5ZI")  # type: ignore[assignment, return-value]
    sys.stdout = _bench.Console()


_STDLIB = (".zip", "lib-dynload", f"python{sys.version_info[0]}.{sys.version_info[1]}")


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


def main() -> None:
    """Boot: boot.py once, then main.py, as after a hard reset."""
    read_fd, write_fd = int(sys.argv[1]), int(sys.argv[2])
    device, boot = sys.argv[3:5]
    become_swan(read_fd, write_fd, device)
    runpy.run_path(boot)
    runpy.run_path(str(Path(device) / "main.py"), run_name="__main__")


if __name__ == "__main__":
    main()
