"""On a real MicroPython: a window made ready for the Notecard, our way against note-python's, no bus, no sleeps.

Not figures of a Swan: a PC's MicroPython, compiled for its processor. Ratios within the run are what counts.
"""

import subprocess
from pathlib import Path

from judder.board import tree
from judder.emulator.runtime import RuntimeMissingError, micropython

GOAL = 10


def main():
    try:
        interpreter = micropython(heap_kb=1024).command[:-1]
    except RuntimeMissingError as error:
        print(f"  skipped: {error}")
        return
    program = Path(__file__).with_name("on_vm.py")
    printed = subprocess.run(
        [*interpreter, str(program), str(tree().device)], check=True, capture_output=True, text=True
    )
    used, *figures = printed.stdout.split()
    ours, plain, stock = map(float, figures[:3])
    print(f"  1024 samples, frame of {figures[3]} bytes, loops in {used} (not a Swan figure)")
    encoding, signing, garbage = map(float, figures[4:])
    print(f"  encode, COBS and CRC-32: {ours:.3f} ms; with plain loops {plain:.2f} ms, {plain / ours:.0f} times longer")
    print(
        f"  signing it: {signing:.3f} ms, {signing / encoding:.0%} of encoding ({encoding:.3f} ms), {garbage:.0f} bytes"
    )
    print(f"  note-python's binary_store_transmit of the article's 12,288 bytes: {stock:.2f} ms")
    print(f"  {stock / ours:.0f} times longer than ours (goal {GOAL})")
