"""Windows of an emulated machine as the LIS3DH gives them in normal mode, without a firmware in between."""

from datetime import UTC, datetime, timedelta

import numpy as np

from judder.emulator.lis3dh import NOISE_G_PER_ROOT_HZ, response
from judder.model.file import GOLDEN_SCALE
from judder.model.recorded import Recorded

ODR_HZ = 1344
BANDWIDTH_HZ = ODR_HZ / 2
NOISE_G = NOISE_G_PER_ROOT_HZ * BANDWIDTH_HZ**0.5
STARTED = datetime(2026, 5, 4, tzinfo=UTC)


def counts(source, times_s, seed, odr_error=0.02, samples=1024):
    """One window from each time on, (k, n, 3)."""
    rng = np.random.default_rng([seed, 0x1B])
    within_s = np.arange(samples) / (ODR_HZ * (1 + odr_error))
    chain = response(BANDWIDTH_HZ, 0.0)
    found = np.empty((len(times_s), samples, 3), np.int16)
    for place, time_s in enumerate(times_s):
        g = source.acceleration(time_s + within_s, chain) + rng.normal(0, NOISE_G, (samples, 3))
        found[place] = np.clip(np.rint(g * 250), -512, 511)  # 4 mg a count
    return found


def recorded(source, times_s, seed=0, label="", odr_error=0.02, samples=1024, device="dev:1"):
    return [
        Recorded(
            name=f"{place:08x}:0",
            device=device,
            label=label,
            taken=STARTED + timedelta(seconds=float(time_s)),
            acceleration=(window * GOLDEN_SCALE).astype(np.float32),
            interval_s=1 / (ODR_HZ * (1 + odr_error)),
            full_scale_g=2,
            flags=0,
        )
        for place, (time_s, window) in enumerate(
            zip(times_s, counts(source, times_s, seed, odr_error, samples), strict=True)
        )
    ]
