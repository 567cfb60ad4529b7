"""`make bench`: speed and size, as ratios within one run, because machines are noisy."""

import sys

from tests.bench import (
    bench_airtime,
    bench_decode,
    bench_detection,
    bench_device,
    bench_emulator,
    bench_model,
    bench_notecard,
    bench_server,
)

BENCHES = {
    "device": bench_device,
    "model": bench_model,
    "decode": bench_decode,
    "server": bench_server,
    "emulator": bench_emulator,
    "notecard": bench_notecard,
    "airtime": bench_airtime,
    "detection": bench_detection,
}


def main() -> None:
    wanted = sys.argv[1:] or list(BENCHES)
    for name in wanted:
        print(f"== {name}")
        BENCHES[name].main()


main()
