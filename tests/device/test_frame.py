"""The device's encoder against golden frames, the host's decoder, and its own promises about size."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.frames import CASES, encode, frame_of, golden, motor, window

import judder
import judder.frame
from node import frame, rice

int16 = st.integers(-32768, 32767)
samples = st.lists(st.tuples(int16, int16, int16), min_size=1, max_size=80).map(
    lambda rows: [v for r in rows for v in r]
)
smooth = st.builds(
    lambda seed, n, step: [v for i in range(n) for v in _walk(random.Random(seed), step, i)],
    st.integers(0, 2**32),
    st.integers(1, 200),
    st.integers(0, 3000),
)


def _walk(rng, step, i):
    value = rng.randint(-500, 500) + i * rng.randint(-step, step) // 50
    return [max(-32768, min(32767, value * sign)) for sign in (1, -1, 3)]


def test_the_golden_table_has_every_case():
    assert golden().keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_frames_are_golden(name):
    assert frame_of(golden()[name]).hex() == golden()[name]["frame"]


@settings(max_examples=300)
@given(samples | smooth)
@example([0, 0, 0] * 4)
@example([-32768, 32767, 0] * 40)
@example([32767, -32768, 32767, -32768, 32767, -32768] * 20)
@example([0] * 300 + [32767, 0, 0])
def test_any_counts_come_back_exactly_and_never_larger_than_raw(counts):
    encoded = encode(window(counts))
    (decoded,) = judder.decode(encoded)
    assert decoded.counts.ravel().tolist() == counts
    raw_length = frame.HEADER_LENGTH + 6 + 2 * len(counts) + 4
    assert len(encoded) <= raw_length
    assert len(encoded) <= frame.max_length(len(counts) // 3, 6)


@given(samples | smooth)
def test_rice_keeps_to_its_limit(counts):
    out = bytearray(200000)
    free = rice.encode(counts, 0, out, 0, len(out))
    if free > 0:
        assert rice.encode(counts, 0, bytearray(len(out)), 0, free) == free
        tight = bytearray(b"\xaa" * len(out))
        assert rice.encode(counts, 0, tight, 0, free - 1) == -1
        assert tight[free - 1 :].count(0xAA) == len(out) - free + 1


def test_a_dirty_buffer_makes_the_same_frame():
    filled = window(motor(256))
    identity = frame.text_block(*[""] * 6)
    dirty = bytearray(b"\xff" * frame.max_length(256, len(identity)))
    length = frame.encode(filled, identity, dirty)
    assert bytes(dirty[:length]) == encode(filled)


def test_the_parameter_is_the_best_one():
    """Every other Rice parameter gives a larger axis."""
    counts = motor(512)
    out = bytearray(10000)
    end = rice.encode(counts, 0, out, 0, 10000)
    order = rice._least(rice._sums)  # of the axis just encoded
    values = list(rice._values[: 512 - order])
    sizes = [(len(values) * k + 7) // 8 + (len(values) + sum(v >> k for v in values) + 7) // 8 for k in range(12)]
    assert min(sizes) == end - 3 - 2 * (order or 1)


def test_the_demo_machine_s_kind_of_window_takes_under_2_2_bytes_a_sample():
    assert len(encode(window(motor(1024)))) / 1024 < 2.2


def test_texts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="300 bytes"):
        frame.text_block("x" * 300, "", "", "", "", "")


def test_both_sides_agree_on_the_format():
    for name in ("MAGIC", "VERSION", "HEADER_LENGTH", "CODEC_INT16", "CODEC_RICE"):
        assert getattr(frame, name) == getattr(judder.frame, name)
    assert judder.frame.HEADER.format == frame.HEADER
    assert judder.frame.HEADER.size == frame.HEADER_LENGTH
    assert judder.frame.SCORES.format == frame.SCORES
    assert judder.frame.SCORES.size == frame.SCORES_LENGTH


@given(samples, st.integers(0, 2**31 - 1))
def test_a_frame_that_was_kept_for_later_gets_its_number(counts, sequence):
    kept = bytearray(encode(window(counts, boot=7, sequence=3)))
    frame.number(kept, sequence)
    assert bytes(kept) == encode(window(counts, boot=7, sequence=sequence))


def test_both_sides_agree_on_the_flags():
    from node import window as device_window

    for flag in judder.Flags:
        assert getattr(device_window, flag.name) == flag
    assert device_window.UNKNOWN_LOSS == judder.frame.UNKNOWN_LOSS
    assert device_window.UNKNOWN_SIGMA == judder.frame.UNKNOWN_SIGMA
    assert device_window.IN_NEXT == judder.frame.IN_NEXT
