"""What is sent to and fro: known to the program that sends and to the test that looks at what arrived."""

SIZES = (1, 253, 254, 255, 4096, 130_554)


def pattern(length):
    """All byte values, runs of zeros and of newlines included."""
    block = bytes(range(256)) + b"\n" * 300 + b"\0" * 300 + bytes(range(255, -1, -1))
    return (block * (length // len(block) + 1))[:length]
