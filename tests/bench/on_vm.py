"""Runs on a MicroPython: our way of making a window ready for the Notecard against the stock one, no bus, no sleeps.

Prints milliseconds of each step. `micropython on_vm.py DEVICE`
"""

import gc
import os
import struct
import sys
import time

sys.path[:] = [sys.argv[1], sys.argv[1] + "/lib", sys.argv[0].rsplit("/", 1)[0]]


class Uname:  # what VMs lack, as in judder/emulator/vm/bootstrap.py
    machine = ""


class Os:
    uname = Uname

    def __getattr__(self, name):
        return getattr(os, name)


sys.modules["os"] = Os()
from notecard import binary_helpers  # noqa: E402
from vm_counts import counts  # noqa: E402

from node import cobs, frame, loops, loops_plain, signature, window  # noqa: E402

SAMPLES = 1024
ROUNDS = 5


class Card:
    """Takes everything at once."""

    def __init__(self):
        self.length = 0

    def Transaction(self, request, lock=True):
        if request["req"] == "card.binary":
            return {"max": 130554, "length": self.length}
        return {}

    def transmit(self, data, delay=True):
        self.length = SAMPLES * 12

    def lock(self):
        pass

    def unlock(self):
        pass


def best_ms(action):
    best = None
    for _ in range(ROUNDS):
        gc.collect()
        started = time.ticks_us()
        action()
        took = time.ticks_diff(time.ticks_us(), started)
        best = took if best is None else min(best, took)
    return best / 1000


def main():
    filled = window.Window(SAMPLES)
    filled.counts = counts(SAMPLES)
    identity = frame.text_block("dev:864475040000001", "judder 0.1.0", "", "5b1f00c2", "demo", "s")
    out = bytearray(frame.max_length(SAMPLES, len(identity)))
    packet = bytearray(cobs.max_length(len(out)))

    def ours():
        end = frame.encode(filled, identity, out)
        cobs.encode(memoryview(out)[:end], packet)

    article = bytearray(12 * SAMPLES)
    for i in range(3 * SAMPLES):
        struct.pack_into("<f", article, 4 * i, filled.counts[i] * 0.0392266)
    card = Card()

    def stock():
        card.length = 0
        binary_helpers.binary_store_transmit(card, article, 0)

    used = "viper" if hasattr(loops, "cobs") and loops.cobs is not loops_plain.cobs else "plain"
    fast = best_ms(ours)
    length = frame.encode(filled, identity, out)
    encoding = best_ms(lambda: frame.encode(filled, identity, out))
    encoded = [memoryview(out)[:length]]
    at = out[5]
    signer = signature.Signer(bytes(16), bytes(out[at + 1 : at + 1 + out[at]]).decode())
    signing = best_ms(lambda: list(signer.pieces(encoded)))
    before = gc.mem_alloc()
    list(signer.pieces(encoded))
    garbage = gc.mem_alloc() - before
    names = [name for name in dir(loops_plain) if not name.startswith("_")]
    kept = [getattr(loops, name) for name in names]
    for name in names:
        setattr(loops, name, getattr(loops_plain, name))
    plain = best_ms(ours)
    for i in range(len(names)):
        setattr(loops, names[i], kept[i])
    theirs = best_ms(stock)
    print(used, fast, plain, theirs, length, encoding, signing, garbage)


main()
