"""The same firmware on real MicroPythons: its pure parts come to CPython's results, and the whole loop runs.

A runtime that is not on this machine is skipped, with what to do about it.
"""

import json
import shutil
from pathlib import Path

import pytest
from tests.device import cases

from judder import demo
from judder.board import Tree, tree
from judder.emulator.clock import VirtualClock
from judder.emulator.i2c import I2CBus
from judder.emulator.runtime import BENCH_KB, HEAP_KB, RUNTIMES, RuntimeMissingError
from judder.emulator.swan import Swan, Timing

MAIN = """
import json
from node import cases
for case in cases.CASES:
    print(json.dumps([case.__name__, case()]))
print("end")
"""


@pytest.fixture(params=["micropython", "wasm"])
def runtime(request):
    try:
        return RUNTIMES[request.param]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))


def test_pure_code_comes_to_the_same_results_as_on_cpython(runtime, tmp_path):
    device = tmp_path / "device"
    shutil.copytree(tree().device / "node", device / "node")
    shutil.copy(Path(cases.__file__), device / "node" / "cases.py")
    (device / "main.py").write_text(MAIN)
    clock = VirtualClock()
    with Swan(
        clock, I2CBus(clock), timing=Timing(stall_probability=0), firmware=Tree(device, tree().boot), runtime=runtime
    ) as swan:
        swan.run(lambda: "end" in swan.lines)
    found = dict(json.loads(line) for line in swan.lines if line.startswith("["))
    assert found == {case.__name__: json.loads(json.dumps(case())) for case in cases.CASES}


@pytest.mark.slow
def test_the_whole_loop_runs_within_256_kb_of_heap(tmp_path):
    """Objects are 64 bits wide there, twice a board's."""
    try:
        runtime = RUNTIMES["micropython"]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    lines = []
    options = demo.Options(tmp_path, windows=200, runtime=runtime)
    finished = demo.run(options, on_line=lambda device, line: lines.append(line))
    assert finished.wrong == []
    assert finished.report.windows_delivered == 200
    assert f"heapsize={HEAP_KB + BENCH_KB}k" in runtime.command
    assert not [line for line in lines if "MemoryError" in line]
    (bench,) = finished.benches
    heap = list(bench.swan.heap_bytes)
    assert len(heap) >= 200
    kept = [after for _, after in heap]
    assert max(kept[-50:]) <= max(kept[10:60])  # flat
    assert max(before for before, _ in heap) < (HEAP_KB + BENCH_KB) * 1024


def test_what_the_bench_s_own_code_takes_of_the_heap_is_what_it_is_given(tmp_path):
    try:
        runtime = RUNTIMES["micropython"]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    (tmp_path / "main.py").write_text("import gc\ngc.collect()\nprint(gc.mem_alloc())\nprint('end')\n")
    clock = VirtualClock()
    with Swan(clock, I2CBus(clock), firmware=Tree(tmp_path, tree().boot), runtime=runtime) as swan:
        swan.run(lambda: "end" in swan.lines)
        *_, taken, _ = swan.lines
    assert BENCH_KB - 1.5 < int(taken) / 1024 <= BENCH_KB


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, "nack", "eio", "badbin", "lost-reply", "wrong-crc", "brown-out"])
def test_no_fault_loses_or_doubles_a_window_there_either(runtime, tmp_path, fault):
    finished = demo.run(demo.Options(tmp_path, windows=20, fault=fault, runtime=runtime))
    assert finished.wrong == []
    assert finished.report.windows_captured == finished.report.windows_stored >= 20
    assert (finished.report.lost, finished.report.duplicates) == (0, 0)
    assert finished.report.interval_error_ppm_rms <= 250
