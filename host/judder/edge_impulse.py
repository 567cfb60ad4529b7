"""What Edge Impulse is sent: one window as a signed acquisition document, the same bytes at every attempt.

Format: docs.edgeimpulse.com, data acquisition format (JSON) and ingestion service. The JSON is written as JavaScript
would write it (no spaces, no exponent, no `.0`, no `-0`), with the shortest digits of each float32, so that its
signature holds whether the service checks the bytes it got or serialises them anew.
"""

import hashlib
import hmac
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import NDArray

from judder.window import Window

URL = "https://ingestion.edgeimpulse.com"
DEVICE_TYPE = "JUDDER_LIS3DH"
SHORTEST_S = 1e-6
SMALLEST_M_S2 = 1e-4  # below it, JavaScript and others disagree about exponents; a count is 39 mm/s2
_NO_SIGNATURE = b"0" * 64
_POINT_ZERO = re.compile(rb"\.0(?=[,\]])")


@dataclass(frozen=True)
class Sample:
    """One file for the ingestion service."""

    name: str
    category: str
    label: str
    body: bytes
    metadata: dict[str, str]

    def headers(self, api_key: str) -> dict[str, str]:
        """Of the request that carries this file alone."""
        return {
            "x-api-key": api_key,
            "x-label": quote(self.label, safe=""),
            "x-disallow-duplicates": "1",
            "x-metadata": json.dumps(self.metadata),
            "x-upload-source": "JUDDER",
        }


def document(
    acceleration: NDArray[np.float32], interval_s: float, device: str, taken_at: datetime, hmac_key: str
) -> bytes:
    """The acquisition document of samples in m/s2, shape (n, 3); signed with HS256 when there is a key.

    Raises ValueError for values or an interval that the format cannot carry.
    """
    if not SHORTEST_S <= interval_s < math.inf or not np.isfinite(acceleration).all():
        raise ValueError("values and interval have to be finite numbers")
    values = acceleration.astype(np.float32) + np.float32(0)  # no -0
    values[np.abs(values) < SMALLEST_M_S2] = 0
    head = {
        "protected": {"ver": "v1", "alg": "HS256" if hmac_key else "none", "iat": int(taken_at.timestamp())},
        "signature": _NO_SIGNATURE.decode(),
        "payload": {
            "device_name": device,
            "device_type": DEVICE_TYPE,
            "interval_ms": _number(interval_s * 1000),
            "sensors": [{"name": name, "units": "m/s2"} for name in ("accX", "accY", "accZ")],
            "values": orjson.Fragment(_POINT_ZERO.sub(b"", orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY))),
        },
    }
    body = orjson.dumps(head)
    if not hmac_key:
        return body
    if body.count(_NO_SIGNATURE) != 1:
        raise ValueError("64 zeros in a text cannot be told from the signature's place")
    return body.replace(_NO_SIGNATURE, signature(body, hmac_key))


def signature(body: bytes, hmac_key: str) -> bytes:
    """Of a document whose signature is 64 zeros: HMAC-SHA256 with the key's characters, in hex."""
    return hmac.new(hmac_key.encode(), body, hashlib.sha256).hexdigest().encode()


def _number(value: float) -> float | int:
    """To nine digits, which is more than is known of an interval; whole numbers without a point."""
    rounded = float(f"{value:.9g}")
    return int(rounded) if rounded.is_integer() else rounded


def file_name(window: Window) -> str:
    """From the window's key, so that every attempt has the same."""
    device = re.sub(r"[^A-Za-z0-9-]", "-", window.device) or "unknown"
    return f"{device}.{window.boot:08x}.{window.sequence}.json"


def metadata(window: Window) -> dict[str, str]:
    """What is known about a window, as texts; what is not known is left out."""
    known = {
        "device": window.device,
        "boot": f"{window.boot:08x}",
        "sequence": window.sequence,
        "firmware": window.firmware,
        "model": window.model,
        "settings": window.settings,
        "session": window.session,
        "started_at": window.started_at and window.started_at.astimezone(UTC).isoformat(),
        "started_at_uncertainty_s": window.started_at_uncertainty_s,
        "odr_hz": window.odr_hz,
        "measured_rate_hz": window.interval_s and f"{1 / window.interval_s:.4f}",
        "interval_sigma_ppm": window.interval_s
        and window.interval_sigma_s
        and f"{window.interval_sigma_s / window.interval_s * 1e6:.0f}",
        "full_scale_g": window.full_scale_g,
        "temperature_degc": window.temperature_degc,
        "samples_lost": window.samples_lost,
        "flags": window.flags.name if window.flags else None,
    }
    return {name: str(value) for name, value in known.items() if value not in (None, "")}
