"""On a real MicroPython with 256 KB of heap: a model of 111 features, a net 20-10-2 and 32 clusters, 1,000 windows.

Not figures of a Swan: a PC's MicroPython on a PC's processor, plain loops where a Swan has ulab. The largest share is
the features; ratios within the run are what counts.
"""

import subprocess
import tempfile
from pathlib import Path

from tests.models import drawn

from judder.board import tree
from judder.emulator.runtime import RuntimeMissingError, micropython

RUNS = 1000


def run(model, runs, heap_kb=256):
    """(us a window, us of that for the features, bytes held with the model, bytes at the fullest) on MicroPython.

    Raises RuntimeMissingError, and CalledProcessError when it runs out of memory.
    """
    interpreter = micropython(heap_kb=heap_kb).command[:-1]
    program = Path(__file__).with_name("on_vm_model.py")
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(model.to_bytes())
        file.flush()
        arguments = [str(program), str(tree().device), file.name, str(runs)]
        printed = subprocess.run([*interpreter, *arguments], check=True, capture_output=True, text=True)
    return tuple(map(int, printed.stdout.split()))


def main():
    made = drawn()
    try:
        window_us, features_us, held, fullest = run(made, RUNS)
    except RuntimeMissingError as error:
        print(f"  skipped: {error}")
        return
    print(f"  {RUNS} windows of 1024 samples, file of {len(made.to_bytes())} bytes: no MemoryError in 256 KB of heap")
    print(f"  {window_us / 1000:.1f} ms a window, {features_us / window_us:.0%} of it features (not a Swan figure)")
    print(
        f"  the model holds {held / 1024:.0f} KB with all code for it, the heap {fullest / 1024:.0f} KB at its fullest"
    )
