"""The power goes at every step of an update by file: the board ends on the new model or the old, and says which."""

import pytest
from tests.chain import chain
from tests.test_update import FAST, model, of_model, slots_for

from judder import code
from judder.emulator.flash import PowerLostError
from judder.emulator.notecard import ADDRESS as NOTECARD_ADDRESS
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

    def settle(self, description=None):
        """Until Notehub has heard that the update is in use; power that goes comes back."""
        bench, told = self.bench, f"{self.model_id} is in use"
        until_ns = bench.clock.now_ns() + LIMIT_NS
        while bench.notecard.update.status != told or self.awaits_cut:
            assert bench.clock.now_ns() < until_ns, self.lines[-20:]
            if bench.swan.has_power:
                bench.swan.step()
            else:
                self.cuts += 1
                bench.clock.sleep(5 * 10**9)
                bench.swan.power_on()
        assert bench.notecard.host_version["description"].startswith(description or f"model {self.model_id}")

    @property
    def awaits_cut(self):
        return self.bench.swan.has_power and len(self.bench.swan.drive_steps) < (self.bench.swan.cut_at or 0)


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


def test_power_cut_between_transfers_of_a_model_update(tmp_path):
    """From the offer to the outcome, at every 19th transfer; every other time the Notecard's power goes, too."""
    with chain(tmp_path) as whole, Board(whole) as board:
        bench, seen = board.bench, [0, 0]

        def cut(transfer):
            seen[0] += transfer.address == NOTECARD_ADDRESS
            if seen[0] == seen[1] and transfer.address == NOTECARD_ADDRESS:
                if board.number % 2:
                    bench.notecard.brown_out()
                raise PowerLostError

        bench.bus.faults.append(cut)
        bench.run(2)
        before = seen[0]
        board.offer()
        board.settle()
        transfers = seen[0] - before
        assert transfers > 150
        for number in range(1, transfers, 19):
            seen[1] = seen[0] + number
            board.offer()
            board.settle()
        assert board.cuts > transfers // 19 - 2
        figures = whole.figures()
    assert figures.unreported == figures.twice == 0


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97, 1])
def test_power_cut_in_a_code_update(tmp_path, share):
    with chain(tmp_path) as whole, Board(whole) as board:
        bench = board.bench
        bench.run(2)
        data = code.update("0.2.0").to_bytes()
        steps = 2 * -(-len(data) // 4096) + 4  # pieces and headers, begun, whole, tried, proved
        bench.swan.cut_at, bench.swan.cut = len(bench.swan.drive_steps) + round(share * steps), PowerCut.midway
        board.model_id = "0.2.0"
        bench.notecard.twin.offer(Firmware("1.judder", data))
        board.settle("no model")
        assert board.cuts == 1
        assert bench.notecard.host_version["version"] == "0.2.0"
        figures = whole.figures()
    assert figures.unreported == figures.twice == 0
