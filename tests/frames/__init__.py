"""Golden frames: one table that the device's encoder and the host's decoder both have to meet.

`golden.json` holds, of each case, what the window says, its samples, and the frame. A version that has shipped never
changes here; a new one adds cases (`python -m tests.frames` prints those of `CASES` that the file lacks).
`golden_reports.json` (`python -m tests.frames reports`) does so for reports. It holds the decoder only: the order of an
object's members is not fixed, so an encoder is held by what its frames decode to.
"""

import json
import math
import random
import struct
from array import array
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

from node import frame
from node.window import Window

FILE = Path(__file__).with_name("golden.json")
REPORTS_FILE = Path(__file__).with_name("golden_reports.json")

TEXTS = ("device", "firmware", "model", "settings", "label", "session")
FIELDS = (
    "flags",
    "boot",
    "sequence",
    "interval_ns",
    "interval_sigma_ns",
    "odr_hz",
    "started_at_us",
    "started_at_uncertainty_ms",
    "temperature",
    "sensitivity_ug",
    "full_scale_g",
    "mode",
    "trigger",
    "scores",
)


def golden():
    return json.loads(FILE.read_text())


def golden_reports():
    return json.loads(REPORTS_FILE.read_text())


def window(counts, gaps=(), **fields):
    """A window as the firmware holds it; counts x, y, z in turn."""
    result = Window(len(counts) // 3)
    result.counts = array("h", counts)
    result.gaps = [tuple(gap) for gap in gaps]
    result.odr_hz, result.sensitivity_ug, result.mode, result.full_scale_g = 1344, 4000, 1, 2
    result.flags = 1 if gaps else 0
    for name, value in fields.items():
        assert name in FIELDS
        setattr(result, name, SimpleNamespace(**value) if name == "scores" else value)
    return result


def encode(filled, texts=("", "", "", "", "", "")):
    identity = frame.text_block(*texts)
    room = bytearray(frame.max_length(filled.samples, len(identity)))
    return bytes(room[: frame.encode(filled, identity, room)])


def motor(samples=1024, seed=1, amplitude=25.0):
    """Counts like those of a small machine at ±2 g: a sine, its second harmonic, noise and gravity."""
    rng = random.Random(seed)
    counts = []
    for i in range(samples):
        turn = 2 * math.pi * 29.2 * i / 1344
        for axis in range(3):
            swing = amplitude * math.sin(turn + axis) + 7 * math.sin(2 * turn)
            counts.append(round(swing + rng.gauss(0, 1.4) + (250 if axis == 2 else 0)))
    return counts


_NAMED = {"device": "dev:864475040000001", "firmware": "judder 0.1.0", "settings": "5b1f00c2", "label": "idle"}

CASES = {
    "smallest": {"counts": [1, -2, 250]},
    "three samples are raw": {"counts": [0, 0, 250, 1, 0, 251, 0, -1, 250]},
    "at rest, order 0": {"counts": [random.Random(i).choice((-1, 0, 1)) + 250 * (i % 3 == 2) for i in range(48)]},
    "ramp, order 1": {"counts": [v for i in range(20) for v in (3 * i, -2 * i, 5 * i + (i % 2))]},
    "parabola, order 2": {"counts": [v for i in range(20) for v in (i * i, -i * i + (i % 3), 7 * i * i)]},
    "cubic, order 3": {"counts": [v for i in range(20) for v in (i**3, 2 * i**3 + (i % 2), -(i**3))]},
    "extremes are raw": {"counts": [random.Random(i).choice((-32768, 32767)) for i in range(30)]},
    "everything said": {
        "counts": motor(64),
        "texts": {**_NAMED, "model": "m-7", "session": "Prüfstand 3"},
        "flags": 0b1100,
        "boot": 0xFFFFFFFF,
        "sequence": 4294967295,
        "interval_ns": 744048,
        "interval_sigma_ns": 127,
        "started_at_us": 1790000000123456,
        "started_at_uncertainty_ms": 1004,
        "temperature": -640,
        "sensitivity_ug": 12000,
        "full_scale_g": 16,
        "mode": 2,
        "trigger": 1,
    },
    "two gaps": {
        "counts": motor(64, seed=2),
        "gaps": [[17, 23], [40, 2]],
        "flags": 3,
        "boot": 1,
        "sequence": 2,
        "interval_ns": 744048,
        "interval_sigma_ns": 300,
    },
    "a gap of unknown length": {
        "counts": motor(32, seed=3),
        "gaps": [[9, 0xFFFF]],
        "flags": 3,
        "interval_sigma_ns": 0xFFFFFFFF,
    },
    "a gap counted in the next": {"counts": motor(32, seed=4), "gaps": [[9, 0xFFFE], [18, 61]], "flags": 3, "boot": 1},
    "a window of the demo's kind": {
        "counts": motor(1024),
        "texts": {**_NAMED, "session": "emulated"},
        "boot": 0xDEADBEEF,
        "sequence": 7,
        "interval_ns": 744048,
        "interval_sigma_ns": 127,
        "started_at_us": 1790000000000000,
        "started_at_uncertainty_ms": 1004,
    },
    "scored": {
        "counts": motor(32, seed=5),
        "texts": {**_NAMED, "model": "a18284e2"},
        "trigger": 1,
        "scores": {"anomaly": 3.5, "class_name": "Lagerschaden", "probability": 0.9375},
    },
    "scored without classes": {
        "counts": motor(32, seed=6),
        "texts": {**_NAMED, "model": "a18284e2"},
        "gaps": [[9, 3]],
        "flags": 1,
        "scores": {"anomaly": -0.25, "class_name": "", "probability": None},
    },
    "scored without clusters": {
        "counts": motor(32, seed=7),
        "trigger": 3,
        "scores": {"anomaly": None, "class_name": "ok", "probability": 1.0},
    },
}


def frame_of(case):
    fields = {name: value for name, value in case.items() if name in (*FIELDS, "counts", "gaps")}
    return encode(window(**fields), [case.get("texts", {}).get(name, "") for name in TEXTS])


REPORT_CASES = {
    "says nothing": {"members": {}},
    "at the start": {
        "texts": {**_NAMED, "model": "m-7", "session": "Prüfstand 3"},
        "boot": 0xDEADBEEF,
        "members": {
            "uptime_s": 3,
            "captured": 0,
            "waiting": 12,
            "previous_boot": 7,
            "previous_captured": 412,
            "persisted": [[7, 411]],
            "reset": "POWER_ON",
            "card": "notecard-8.1.3.17074",
            "heap_free": 411000,
        },
    },
    "boots that told nothing": {
        "texts": _NAMED,
        "boot": 9,
        "members": {
            "captured": 1,
            "previous_boot": 8,
            "earlier_boots": [[7, None], [0xFFFFFFFF, 12], [5, None]],
            "earlier_boots_more": 2,
        },
    },
    "everything said": {
        "texts": _NAMED,
        "boot": 0xFFFFFFFF,
        "sequence": 0xFFFFFFFF,
        "written_at_us": 1790000000123456,
        "members": {
            "uptime_s": 86412.5,
            "captured": 96,
            "waiting": 2,
            "lost": [[0xFFFFFFFF, 3, 3, "refused"], [7, 40, 57, "dropped"], [7, 60, 60, "damaged"], [6, 0, 9, "gone"]],
            "lost_more": 1,
            "skipped": 4,
            "previous_boot": 0,
            "persisted": [[7, 57], [0, 3]],
            "reset": "UNKNOWN",
            "bus_errors": 1,
            "retries": 2,
            "overruns": 3,
            "samples_lost": 40,
            "link_failures": 5,
            "transactions": 1234,
            "posted_bytes": 250000,
            "voltage_v": 5.04,
            "temperature_degc": -12.5,
            "bars": 3,
            "rssi_dbm": -71,
            "card": "notecard-8.1.3.17074",
            "heap_free": 390000,
        },
    },
    "scored": {
        "texts": {**_NAMED, "model": "a18284e2"},
        "members": {
            "scored": 92,
            "events": 3,
            "unsent": 90,
            "unfit": 1,
            "unfit_because": "gaps in the window",
            "model_refused": "model.bin is not used: it is damaged",
            "score_low": -1.25,
            "score_step": 0.25,
            "scores": [0, 1, 12, 40, 30, 6, 1, 2],
            "feature_windows": 24,
            "feature_mean": [0.7213, -3, 1e-05],
            "feature_variance": [0.01, 0, 2.5],
        },
    },
    "members of later versions": {"sequence": 0x80000005, "members": {"captured": 6, "Größe": [{"a": None}]}},
}


def encode_report(members, texts=("", "", "", "", "", ""), boot=0, sequence=0x80000000, written_at_us=0, content=None):
    """A report by the byte table, sharing nothing with the firmware; `content` stands for the JSON of `members`."""
    identity = b"".join(bytes([len(text.encode())]) + text.encode() for text in texts)
    content = json.dumps(members, ensure_ascii=False).encode() if content is None else content
    length = 30 + len(identity) + len(content) + 4
    header = struct.pack("<4sBBHIIIQH", b"VR\xc1\x7f", 1, 30, 0, length, boot, sequence, written_at_us, len(identity))
    return (header + identity + content) + struct.pack("<I", crc32(header + identity + content))


def report_of(case):
    fields = {name: case[name] for name in ("boot", "sequence", "written_at_us") if name in case}
    return encode_report(case["members"], [case.get("texts", {}).get(name, "") for name in TEXTS], **fields)
