"""Which interpreter plays the board: CPython made to look like CircuitPython, or a real MicroPython.

cpython has CircuitPython's modules (`modules/`) and its bus, and checks what they check. micropython is Debian's
build, with a cap on its heap; wasm is the build for the browser, run by node: 32 bits, no native code. Both take the
firmware's MicroPython path and get what they lack from `vm/`. None of them is CircuitPython itself: no package of it
for a PC was found.
"""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HEAP_KB = 256  # for the firmware; objects are twice the size they have on a board: about 128 KB there
BENCH_KB = 18  # what our own code in vm/ takes beside it, which no board has (gc.mem_alloc before main.py)
MODEL_HEAP_KB = 384  # with a model
WASM_PACKAGE = "@micropython/micropython-webassembly-pyscript"
WASM_VERSION = "1.27.0"

_HERE = Path(__file__).parent


class RuntimeMissingError(LookupError):
    """An interpreter is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Runtime:
    """An interpreter.

    `command` is followed by the stream's two file descriptors, the board's tree, its boot.py, and a file of JSON that
    says how the board was started: see Swan._start.
    """

    name: str
    command: tuple[str, ...]


def cpython() -> Runtime:
    """The interpreter that runs us, isolated from its surroundings."""
    return Runtime("cpython", (sys.executable, "-I", "-S", str(_HERE / "interpreter.py")))


def micropython(heap_kb: int = HEAP_KB) -> Runtime:
    """MicroPython's unix port: the private root that `make setup` made, or the one on the path."""
    root = Path(sys.prefix) / "micropython"
    binary = root / "usr" / "bin" / "micropython"
    found = shutil.which("micropython")
    interpreter: tuple[str, ...]
    if binary.is_file():
        (loader,) = root.glob("usr/lib/*/ld-linux*.so.*")
        interpreter = (str(loader), "--library-path", str(loader.parent), str(binary))
    elif found:
        interpreter = (found,)
    else:
        raise RuntimeMissingError(
            "no MicroPython: `make setup` in a checkout, or `apt install micropython` (Debian 13)"
        )
    options = "-X", f"heapsize={heap_kb + BENCH_KB}k"
    return Runtime("micropython", (*interpreter, *options, str(_HERE / "vm" / "unix.py")))


def wasm() -> Runtime:
    """MicroPython as WebAssembly, from the folder `make setup` has npm fill, or from this one's node_modules."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeMissingError("no node, which runs MicroPython's wasm build: install node 20 or later")
    for folder in (Path(__file__).parents[3] / "tests" / "vm", Path.cwd()):
        module = folder / "node_modules" / WASM_PACKAGE / "micropython.mjs"
        if module.is_file():
            return Runtime("wasm", (node, str(_HERE / "vm" / "wasm.mjs"), str(module)))
    raise RuntimeMissingError(f"no MicroPython wasm build: `npm install {WASM_PACKAGE}@{WASM_VERSION}` in this folder")


RUNTIMES: dict[str, Callable[[], Runtime]] = {"cpython": cpython, "micropython": micropython, "wasm": wasm}


def interpreter_of(name: str, *, with_model: bool) -> Runtime:
    """The runtime of that name, with room for a model if it has to hold one. Raises RuntimeMissingError."""
    return micropython(MODEL_HEAP_KB) if with_model and name == "micropython" else RUNTIMES[name]()
