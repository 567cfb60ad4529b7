"""The acquisition document: its bytes, its numbers, its signature."""

import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.frames import golden

from judder import decode
from judder.edge_impulse import SMALLEST_M_S2, Sample, document, file_name, metadata

KEY = "0123456789abcdef0123456789abcdef"
TAKEN_AT = datetime(2026, 5, 4, 3, 2, 1, 500_000, tzinfo=UTC)
values = arrays.arrays(np.float32, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(-200, 200, width=32))


def a_document(acceleration, interval_s=744048e-9, device="dev:1", hmac_key=KEY):
    return document(acceleration, interval_s, device, TAKEN_AT, hmac_key)


@given(values, st.integers(10**5, 10**9))
def test_it_is_what_javascript_would_write_and_the_values_are_exact(acceleration, interval_ns):
    body = a_document(acceleration, interval_ns / 1e9)
    text = body.decode("ascii")
    found = json.loads(text)
    assert not re.search(r"[ \n]|\d[eE]|\.0[,\]}]|-0[,\]]", text.replace(found["signature"], ""))
    expected = np.where(np.abs(acceleration) < SMALLEST_M_S2, 0, acceleration).astype(np.float32)
    assert np.array_equal(np.array(found["payload"]["values"], np.float32), expected)
    assert found["payload"]["interval_ms"] == pytest.approx(interval_ns / 1e6, rel=1e-8)
    again = json.dumps(found, separators=(",", ":"))
    assert json.loads(again) == found
    assert again == text  # Python's and JavaScript's shortest digits of a double are the same


@given(values)
def test_it_is_signed_over_its_own_bytes(acceleration):
    body = a_document(acceleration)
    signature = json.loads(body)["signature"].encode()
    assert body.count(signature) == 1
    unsigned = body.replace(signature, b"0" * 64)
    assert hmac.new(KEY.encode(), unsigned, hashlib.sha256).hexdigest().encode() == signature


def test_its_fields():
    found = json.loads(a_document(np.ones((2, 3), np.float32)))
    assert found["protected"] == {"ver": "v1", "alg": "HS256", "iat": 1777863721}
    assert found["payload"] == {
        "device_name": "dev:1",
        "device_type": "JUDDER_LIS3DH",
        "interval_ms": 0.744048,
        "sensors": [{"name": name, "units": "m/s2"} for name in ("accX", "accY", "accZ")],
        "values": [[1, 1, 1], [1, 1, 1]],
    }


def test_without_a_key_it_says_so():
    found = json.loads(a_document(np.ones((1, 3), np.float32), hmac_key=""))
    assert found["protected"]["alg"] == "none"
    assert found["signature"] == "0" * 64


def test_the_same_window_is_the_same_bytes():
    acceleration = np.random.default_rng(1).normal(0, 5, (100, 3)).astype(np.float32)
    assert a_document(acceleration) == a_document(acceleration.copy())


def test_the_digits_are_the_shortest_of_float32():
    assert b"[[9.80665,0.039226,-1.1]]" in a_document(np.array([[9.80665, 0.039226, -1.1]], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_the_format_cannot_carry_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        a_document(np.array([[1, 2, bad]], np.float32))
    with pytest.raises(ValueError, match="finite"):
        a_document(np.ones((1, 3), np.float32), interval_s=bad)
    with pytest.raises(ValueError, match="64 zeros"):
        a_document(np.ones((1, 3), np.float32), device="0" * 64)


def test_name_metadata_and_headers():
    (window,) = decode(bytes.fromhex(golden()["everything said"]["frame"]))
    assert file_name(window) == "dev-864475040000001.ffffffff.4294967295.json"
    found = metadata(window)
    assert found["measured_rate_hz"] == "1343.9993"
    assert found["flags"] == "SATURATED|SLOW_BUS"
    assert found["session"] == "Prüfstand 3"
    assert all(isinstance(value, str) for value in found.values())
    headers = Sample("n.json", "training", "Läuft 1", b"", found).headers("ei_key")
    assert unquote(headers["x-label"]) == "Läuft 1"
    assert headers["x-disallow-duplicates"] == "1"
    assert json.loads(headers["x-metadata"]) == found
    assert all(value.isascii() for value in headers.values())


def test_a_device_s_name_cannot_leave_the_file_name():
    (window,) = decode(bytes.fromhex(golden()["smallest"]["frame"]))
    assert file_name(window) == "unknown.00000000.1.json" or file_name(window).startswith("unknown.")
