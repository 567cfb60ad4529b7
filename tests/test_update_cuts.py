"""The power goes at every step of an update by file: the board ends on the new model or the old, and says which."""

import pytest
from tests.chain import chain
from tests.test_update import FAST, model, of_model, slots_for

from judder.emulator.notecard.twin import Firmware
from judder.emulator.swan import PowerCut

pytestmark = pytest.mark.slow

LIMIT_NS = 3 * 3600 * 10**9


class Board:
    """One bench on which update follows update; each is a model of its own."""

    def __init__(self, whole):
        self.bench = whole.bench(settings=FAST)
        self.lines = whole.lines
        self.number = 0
        self.model_id = ""
        self.cuts = 0
        slots_for(self.bench)

    def __enter__(self):
        self.bench.__enter__()
        return self

    def __exit__(self, *exception):
        self.bench.__exit__(*exception)

    def offer(self):
        self.number += 1
        data, self.model_id = model(self.number)
        del self.lines[:]
        self.bench.notecard.twin.offer(Firmware(f"{self.number}.judder", of_model(data)))

    def settle(self):
        """Until the board has told that the update is in use; power that goes comes back."""
        bench, told = self.bench, f"update: {self.model_id} is in use"
        until_ns = bench.clock.now_ns() + LIMIT_NS
        while told not in self.lines:
            assert bench.clock.now_ns() < until_ns, self.lines[-20:]
            bench.swan.run(lambda: told in self.lines or not bench.swan.has_power or bench.clock.now_ns() > until_ns)
            self.return_power()
        bench.swan.run(lambda: "stored" in self.lines[-1] or not bench.swan.has_power)
        self.return_power()
        assert bench.notecard.host_version["description"] == f"model {self.model_id}"

    def return_power(self):
        if not self.bench.swan.has_power:
            self.cuts += 1
            self.bench.clock.sleep(5 * 10**9)
            self.bench.swan.power_on()


def test_power_cut_at_every_write_of_a_model_update(tmp_path):
    with chain(tmp_path) as whole, Board(whole) as board:
        bench = board.bench
        bench.run(2)
        board.offer()
        before = len(bench.swan.drive_steps)
        board.settle()
        steps = len(bench.swan.drive_steps) - before
        assert steps >= 10
        assert set(bench.swan.drive_steps) == {"write in place"}
        for step in range(1, steps + 1):
            for cut in (PowerCut.before, PowerCut.midway):
                bench.swan.cut_at, bench.swan.cut = len(bench.swan.drive_steps) + step, cut
                board.offer()
                board.settle()
        assert board.cuts == 2 * steps
        figures = whole.figures()
    assert figures.unreported == figures.twice == 0
