"""Runs on a MicroPython, too: a window such as a small machine makes, always the same."""

from array import array


def counts(samples):
    values = array("h", bytes(6 * samples))
    state = 1
    for i in range(3 * samples):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        values[i] = (state >> 20) % 25 + 40 * (i // 3 % 46 - 23) // 23 + (250 if i % 3 == 2 else 0)
    return values
