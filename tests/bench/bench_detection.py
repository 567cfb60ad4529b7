"""What share of windows with a small defect a model finds that has only seen healthy ones, and of healthy ones takes
for events. Each seed is a machine whose speed and load wander in their own way; nothing is tuned to one."""

import sys
from dataclasses import replace

import numpy as np
from tests.vibration import BANDWIDTH_HZ, NOISE_G, recorded

from judder.emulator.lis3dh import response
from judder.emulator.machine import Machine, Service, _strikes
from judder.model.blocks import compute
from judder.model.train import Options, train

SEEDS = range(6)
TRAINED = 400
HELD_OUT = 1000
ELSEWHERE = 400
EVERY_S = 600
LATER_S = 30 * 86400
ODR_ERROR = 0.02  # of the part that training has seen
LEAST_FOUND, MOST_FALSE = 0.95, 0.01


def features(model, windows):
    return np.array([compute(model.blocks, one.acceleration, 1 / model.interval_s) for one in windows])


def events(model, table):
    return float((model.clusters.scores(table) > model.clusters.threshold).mean())


def healthy(seed, base_g, **swings):
    return Service(Machine(bearing_g=base_g), seed=seed, **swings)


def outside(service):
    """Times at which it runs where training has never been: beyond 5 % of speed or 30 % of load."""
    times_s, base = LATER_S + np.arange(20 * ELSEWHERE) * EVERY_S, service.machine
    machines = [service.at(time_s) for time_s in times_s]
    speed = np.array([one.shaft_hz for one in machines]) / base.shaft_hz - 1
    load = np.array([one.harmonics_g[0] for one in machines]) / base.harmonics_g[0] - 1
    return times_s[(np.abs(speed) > 0.05) | (np.abs(load) > 0.3)][:ELSEWHERE]


def measure(seed, base_g, trained=TRAINED, held_out=HELD_OUT, elsewhere=True):
    """Shares of windows that are events, by what they are of; of the two kinds of clusters."""
    service = healthy(seed, base_g)
    windows = recorded(service, np.arange(trained) * EVERY_S, seed)
    models = {"judder": train(windows, Options()).model, "k-means": train(windows, Options(standard=True)).model}
    model = models["judder"]
    later_s = LATER_S + np.arange(held_out) * EVERY_S
    kinds = {
        "healthy": (service, later_s, ODR_ERROR),
        "bearing": (replace(service, defect="bearing"), later_s, ODR_ERROR),
        "imbalance": (replace(service, defect="imbalance"), later_s, ODR_ERROR),
    }
    if elsewhere:
        some_s = later_s[:ELSEWHERE]
        wide = healthy(seed, base_g, speed_swing=0.08, load_swing=0.45)
        beyond_s = outside(wide)
        for off in (-0.02, 0.02):
            kinds[f"healthy, part {off:+.0%}"] = (service, some_s, ODR_ERROR + off)
            kinds[f"bearing, part {off:+.0%}"] = (replace(service, defect="bearing"), some_s, ODR_ERROR + off)
        kinds["healthy, outside"] = (wide, beyond_s, ODR_ERROR)
        kinds["bearing, outside"] = (replace(wide, defect="bearing"), beyond_s, ODR_ERROR)
    found = {name: {} for name in models}
    for number, (kind, (source, times_s, odr_error)) in enumerate(kinds.items()):
        table = features(model, recorded(source, times_s, 1000 * (number + 1) + seed, odr_error=odr_error))
        for name, one in models.items():
            found[name][kind] = events(one, table)
    return found


def of_three_parts(seed, base_g, trained=2 * TRAINED):
    """Trained on three boards on the machine, up to 4 % apart in rate; shares of events on parts seen and not seen."""
    service, later_s = healthy(seed, base_g), LATER_S + np.arange(ELSEWHERE) * EVERY_S
    windows = []
    for number, odr_error in enumerate((0.0, 0.02, 0.04)):
        times_s = np.arange(number, trained, 3) * EVERY_S
        windows += recorded(service, times_s, 10 * seed + number, odr_error=odr_error, device=f"dev:{number}")
    model, found = train(windows, Options()).model, {}
    for odr_error in (0.0, 0.01, 0.04):
        for kind, source in (("healthy", service), ("bearing", replace(service, defect="bearing"))):
            later = recorded(source, later_s, 5000 + seed + int(odr_error * 1000), odr_error=odr_error)
            found[f"{kind}, part {odr_error:+.0%}"] = events(model, features(model, later))
    return found


def ideal(base_g, factor=1.2):
    """d' of who knows speed and load, and weighs the power in each line of the bearing by what is expected there."""
    machine = Machine(bearing_g=base_g)
    frequencies_hz, amplitudes = _strikes(machine)
    peak_g = np.abs(amplitudes) * response(BANDWIDTH_HZ, 0.0)(frequencies_hz)[:, None]
    noise_g = np.hypot(NOISE_G, 0.004 / 12**0.5)
    power = 1024 * peak_g**2 / (2 * noise_g**2)  # noncentrality of a line's two degrees of freedom
    more = (factor**2 - 1) * power
    return float((power * more).sum() / np.sqrt((power**2 * (4 + 4 * power)).sum())), float(
        (peak_g**2 / 2).sum() ** 0.5
    )


def main(seeds=SEEDS, bases_g=(0.02, 0.04, 0.06, 0.1)):
    print(f"trained on {TRAINED} healthy windows; held out: {HELD_OUT} of each kind, a month later; defects of +20 %")
    failed = []
    for base_g in bases_g:
        known, rms_g = ideal(base_g)
        print(
            f"bearing strikes with {base_g * 1e3:.0f} mg: {rms_g * 1e3:.1f} mg rms at the sensor and "
            f"{NOISE_G * 3**0.5 * 1e3:.1f} of noise, all axes together; d' of who knows speed and load: {known:.1f}"
        )
        of_all = []
        for seed in seeds:
            found = measure(seed, base_g, elsewhere=base_g == 0.06)
            of_all.append(found)
            print(f"  seed {seed}: " + "; ".join(_line(name, shares) for name, shares in found.items()), flush=True)
            ours = found["judder"]
            if base_g == 0.06 and (ours["bearing"] < LEAST_FOUND or ours["healthy"] > MOST_FALSE):
                failed.append(seed)
        for name in of_all[0]:
            _summary(name, [found[name] for found in of_all])
        if base_g == 0.06:
            print(f"  trained on {2 * TRAINED} windows of three parts, +0 %, +2 % and +4 % off the nominal rate")
            _summary("judder", [of_three_parts(seed, base_g) for seed in seeds])
    if failed:
        sys.exit(f"below {LEAST_FOUND:.0%} at {MOST_FALSE:.0%} false alarms: seeds {failed}")


def _summary(name, found):
    for kind in found[0]:
        shares = [one[kind] for one in found]
        print(
            f"    {name:8} {kind:20} events {np.mean(shares):7.2%}  ({min(shares):.2%} to {max(shares):.2%})",
            flush=True,
        )


def _line(name, shares):
    return f"{name} bearing {shares['bearing']:.1%}, imbalance {shares['imbalance']:.1%}, false {shares['healthy']:.2%}"
