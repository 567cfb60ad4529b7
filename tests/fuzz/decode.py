"""Any bytes to windows; also with their checksums made right, or nothing would get past those."""

import re
from binascii import crc32
from contextlib import suppress

from tests.frames import golden, golden_reports

from judder import FrameError, Window, decode, decode_article, decode_frames

MAGIC = re.compile(rb"V[WR]\xc1\x7f")  # a window's and a report's
SHORTEST = 16

SEEDS = [bytes.fromhex(case["frame"]) for case in golden().values()]
SEEDS += [bytes.fromhex(case["frame"]) for case in golden_reports().values()]
SEEDS += [SEEDS[0] + SEEDS[1], SEEDS[0][:20] + SEEDS[1], bytes(24)]
WORDS = [b"VW\xc1\x7f", b"VR\xc1\x7f", b"\xff\xff", b"\xfe\xff"]


def run(data):
    check(data)
    check(sealed(data))
    check_article(data)


def check(body):
    items = list(decode_frames(body))
    assert items
    refused = [item for item in items if isinstance(item, FrameError)]
    for error in refused:
        check_refusal(error)
    windows = [item for item in items if not isinstance(item, FrameError)]
    for window in windows:
        assert window.frame in body
        (again,) = decode_frames(window.frame)
        assert (type(again), again.frame, again.boot, again.sequence) == (
            type(window),
            window.frame,
            window.boot,
            window.sequence,
        )
        if isinstance(window, Window):
            assert 0 < len(window) == len(window.counts) == len(window.acceleration)
            assert (again.counts == window.counts).all()
    assert sum(len(window.frame) for window in windows) <= len(body)
    with suppress(FrameError):
        assert len(decode(body)) == sum(isinstance(window, Window) for window in windows)
        assert not refused


def check_refusal(error):
    assert 400 <= error.status < 500
    assert error.reason.isprintable()


def check_article(data):
    try:
        assert len(decode_article(data)) * 12 == len(data)
    except FrameError as error:
        check_refusal(error)


def sealed(body):
    """`body` with each frame's checksum made right, and its length where that leads nowhere."""
    result = bytearray(body)
    found = MAGIC.search(result)
    while found:
        at = found.start()
        end = at + int.from_bytes(result[at + 8 : at + 12], "little")
        if not at + SHORTEST <= end <= len(result):
            following = MAGIC.search(result, at + SHORTEST)
            end = following.start() if following else len(result)
        if end < at + SHORTEST:
            break
        result[at + 8 : at + 12] = (end - at).to_bytes(4, "little")
        result[end - 4 : end] = crc32(result[at : end - 4]).to_bytes(4, "little")
        found = MAGIC.search(result, end)
    return bytes(result)
