"""`make fuzz`: each target until its coverage grows no more; then its corpus anew, and a table.

One has reached its plateau when none of the last QUIET inputs and of the last QUIET_S seconds covered a new edge;
LIMIT_S ends it anyway.
What fails a target is left in `found`, and fails the tests from then on.
"""

import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from hashlib import sha1
from pathlib import Path

from tests.fuzz import FOLDER, TARGETS, kept

QUIET = 10_000
QUIET_S = int(os.environ.get("FUZZ_QUIET_S", "60"))
LIMIT_S = int(os.environ.get("FUZZ_S", "600"))
HANG_S = 10
MEMORY_MB = 1024
LONGEST = 4096  # bytes of an input

_RUN = re.compile(r"^#(\d+)\s", re.MULTILINE)
_GROWN = re.compile(r"^#(\d+)\s+(?:INITED|NEW) .*?cov: (\d+) ft: (\d+)", re.MULTILINE)
_COLUMNS = ("target", "inputs", "inputs/s", "quiet", "edges", "features", "lines %", "peak MB", "corpus", "kB", "ended")
_ROW = "{:10}{:>9}{:>10}{:>9}{:>7}{:>10}{:>9}{:>9}{:>8}{:>7}  {}"


def main():
    try:
        importlib.import_module("atheris")
    except ImportError:
        sys.exit(
            "make fuzz needs atheris, which is for CPython on Linux (x86-64); make test replays the corpus without it"
        )
    names = sys.argv[1:] or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        sys.exit(f"no target {', '.join(unknown)}: there are {', '.join(TARGETS)}")
    print(_ROW.format(*_COLUMNS), flush=True)
    failed = False
    for name in names:
        with tempfile.TemporaryDirectory(prefix="judder-fuzz-") as folder:
            ended = fuzz(name, Path(folder))
        failed |= ended not in ("plateau", "limit")
    sys.exit(failed)


def fuzz(name, folder):
    """One row of the table; returns why it ended."""
    grown, found, corpus = folder / "grown", FOLDER / "found" / name, FOLDER / "corpus" / name
    for one in (grown, found, corpus):
        one.mkdir(parents=True, exist_ok=True)
    target = importlib.import_module(f"tests.fuzz.{name}")
    for seed in target.SEEDS:
        (grown / sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.WORDS))

    log = folder / "log"
    limits = (f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={LONGEST}", f"-artifact_prefix={found}/")
    with log.open("w") as output:
        command = engine(name, *limits, f"-dict={words}", "-print_final_stats=1", grown, corpus, found)
        ended = watch(subprocess.Popen(command, stdout=output, stderr=output, env=environment(folder)), log)
    if ended == "failed":
        print(log.read_text()[-3000:])
        return ended
    thin(name, folder, grown, corpus, found)
    report(name, log.read_text(), ended)
    return ended


def _escaped(word):
    return "".join(f"\\x{one:02x}" for one in word)


def engine(name, *arguments):
    return [sys.executable, "-m", "tests.fuzz.engine", name, *map(str, arguments)]


def environment(folder):
    """What a target leaves behind goes with the folder."""
    return os.environ | {"TMPDIR": str(folder)}


def watch(child, log):
    """Let it run until the plateau or the limit; returns which, or that it failed."""
    edges, grown_at, began_s = 0, 0, time.monotonic()
    grown_s = began_s
    while child.poll() is None:
        time.sleep(0.5)
        now_s, said = time.monotonic(), log.read_text()
        inputs = max(map(int, _RUN.findall(said)), default=0)
        latest = max((int(seen) for _, seen, _ in _GROWN.findall(said)), default=0)
        if latest > edges:
            edges, grown_at, grown_s = latest, inputs, now_s
        quiet = now_s - grown_s > QUIET_S and inputs - grown_at > QUIET
        if quiet or now_s - began_s > LIMIT_S:
            child.send_signal(signal.SIGUSR1)  # libFuzzer ends in an orderly way
            child.wait(2 * HANG_S)
            return "plateau" if quiet else "limit"
    return "failed"


def thin(name, folder, *sources):
    """Make the corpus the fewest inputs that cover every edge that any of the sources does."""
    fewest = folder / "fewest"
    fewest.mkdir()
    options = (
        "-merge=1",
        "-set_cover_merge=1",
        "-use_counters=0",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={folder}/",
    )
    subprocess.run(engine(name, *options, fewest, *sources), check=True, capture_output=True, env=environment(folder))
    corpus = FOLDER / "corpus" / name
    for path in corpus.iterdir():
        path.unlink()
    for path in fewest.iterdir():
        data = path.read_bytes()
        (corpus / sha1(data, usedforsecurity=False).hexdigest()[:16]).write_bytes(data)


def report(name, log, ended):
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", log))
    inputs = int(stats["number_of_executed_units"])
    growth = [(int(at), int(edges), int(features)) for at, edges, features in _GROWN.findall(log)]
    edges = max(edges for _, edges, _ in growth)
    quiet = inputs - min(at for at, seen, _ in growth if seen == edges)
    files = kept(name)
    row = (
        inputs,
        stats["average_exec_per_sec"],
        quiet,
        edges,
        max(features for *_, features in growth),
        lines_reached(name),
    )
    size = sum(path.stat().st_size for path in files) / 1000
    print(_ROW.format(name, *row, stats["peak_rss_mb"], len(files), f"{size:.1f}", ended), flush=True)


def lines_reached(name):
    if not TARGETS[name]:
        return "-"
    command = [sys.executable, "-m", "tests.fuzz.lines", name]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout.strip()


main()
