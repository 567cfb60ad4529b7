"""The way back with the real firmware: releases, settings and captures through Notehub's HTTP API to an emulated board.

What a whole fleet does, or a card without a board, is in tests/host and tests/emulator.
"""

import asyncio
import shutil

import pytest
from tests.chain import chain
from tests.fleet import asked
from tests.models import drawn
from tests.test_update import FAST, slots_for

from judder import binpack, capture, code, environment, image, release, rollout
from judder.board import Tree, tree
from judder.emulator.flash import Torn
from judder.emulator.i2c import ADDRESS_NACK, Injected
from judder.emulator.notecard.twin import Firmware
from judder.emulator.notehub_api import NotehubApi
from judder.emulator.notehub_project import CardDevice, Entry, Project
from judder.emulator.program import stand_in
from judder.emulator.swan import settings_toml
from judder.fleet import select
from judder.notehub import Scope

pytestmark = pytest.mark.slow
SETTINGS = settings_toml(FAST).encode()
LIMIT_NS = 4 * 3600 * 10**9


class Field:
    """A board in the field, the project that it belongs to, and their time."""

    def __init__(self, bench):
        self.bench = bench
        self.project = Project(now_s=self.now_s)
        fleet = self.project.add_fleet("field")
        self.project.add(Entry(CardDevice(bench.notecard), "pump-3", fleets=(fleet,)))
        self.api = NotehubApi(self.project, "token")

    def now_s(self):
        return self.bench.clock.utc_ns() / 1e9

    async def sleep(self, seconds):
        self.bench.run_for(seconds)

    def do(self, work):
        """What `work` gives with a client of the service."""

        async def go():
            async with asked(self.api, self, token="token") as hub:
                return await work(hub, (await select(hub, (), ("field",), ())))

        return asyncio.run(go())

    def release(self, path):
        async def work(hub, chosen):
            planned = release.plan(
                release.read(path), chosen.devices, chosen.filters, source=path, max_failed="0", now_s=self.now_s()
            )
            journal = release.Journal(path.with_suffix(".json"))
            await rollout.run(planned, hub, journal, now_s=self.now_s, sleep=self.sleep)
            return planned

        return self.do(work)


def test_a_model_is_released_costs_little_and_is_in_the_next_windows(tmp_path):
    data = drawn(7).to_bytes()  # of the usual size: 111 features, two hidden layers, 32 clusters
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with chain(tmp_path / "data") as whole, whole.bench(settings=FAST | {"SAMPLES": 1024}) as bench:
        slots_for(bench)
        bench.run(2)
        made = Field(bench).release(path)
        bench.run(len(bench.captured) + 2)
        windows = list(whole.queue.windows())
        figures = whole.figures()
    assert made.state is release.State.DONE
    assert windows[-1].model == made.model == f"{int.from_bytes(data[-4:], 'little'):08x}"
    assert figures.unreported == figures.twice == figures.tail == 0
    assert len(data) < bench.notecard.update.bytes_downloaded < 20_000


def test_what_is_set_is_seen_to_be_in_effect_or_refused_and_why(tmp_path):
    with chain(tmp_path) as whole, whole.bench(settings=FAST) as bench:
        field = Field(bench)
        bench.run(2)

        async def work(hub, chosen):
            (device,) = chosen.devices
            (fleet,) = chosen.filters["fleetUID"]
            await hub.set_variables(Scope("fleet", fleet), {"ODR_HZ": "400", "LABEL": "worn"})
            await hub.set_variables(Scope("device", device.uid), {"SAMPLES": "9000"})  # by hand, at Notehub
            before = await environment.status(hub, chosen.devices)
            await field.sleep(120)
            return before, await environment.status(hub, chosen.devices)

        (before,), (after,) = field.do(work)
        bench.run(len(bench.captured) + 1)
        newest = list(whole.queue.windows())[-1]
    assert {one.name: one.state for one in before.settings} == {
        "ODR_HZ": "not yet",
        "LABEL": "not yet",
        "SAMPLES": "not yet",
    }
    assert {one.name: one.state for one in after.settings} == {
        "ODR_HZ": "effective",
        "LABEL": "effective",
        "SAMPLES": "refused",
    }
    assert [one.reason for one in after.settings if one.name == "SAMPLES"] == [
        "SAMPLES = 9000; must be a whole number from 64 to 4096"
    ]
    assert whole.said("not set from afar: SAMPLES = 9000; must be a whole number from 64 to 4096")
    assert newest.settings == after.hash
    assert (newest.odr_hz, newest.label, len(newest)) == (400, "worn", 128)


@pytest.mark.parametrize("signal", [True, False])
def test_a_window_is_asked_for_and_the_answer_names_it(tmp_path, signal):
    with chain(tmp_path) as whole, whole.bench(settings=FAST | {"CAPTURE_EVERY_S": 7200}) as bench:
        field = Field(bench)
        bench.run(1)

        async def work(hub, chosen):
            uids = [one.uid for one in chosen.devices]
            await capture.ask(hub, uids, "now", signal=signal)
            return await capture.answers(hub, uids, "now", 600, sleep=field.sleep, now_s=field.now_s)

        (answer,) = field.do(work)
        stored = {(one.boot, one.sequence): one for one in whole.queue.windows()}
    assert stored[int(answer.boot, 16), answer.sequence].request == "now"


# --- outboard ---------------------------------------------------------------------------------------------------------


def pack(version):
    contents = image.Contents(version, settings=SETTINGS)
    return image.build(contents, stand_in(8192)).data


def test_a_power_cut_at_every_page_of_an_outboard_update_ends_on_the_new_version(tmp_path):
    """In one update that is begun again and again; whatever is half written boots and runs in between."""
    old, new = pack("1.0.0"), pack("1.1.0")
    with chain(tmp_path) as whole, whole.bench(image=old) as bench:
        bench.run(2)
        program = bench.swan.program
        steps = 1 + len(program.cut_into_pages(binpack.unpack(new).parts))  # all is erased first
        assert steps > 60
        files = {path: data for path, data in image.Contents("1.1.0", settings=SETTINGS).files().items() if data}
        bench.notecard.twin.offer(Firmware("v2.binpack", new))
        for step in range(1, steps + 1):
            program.cut_at, program.torn = program.steps + step, (Torn.erased, Torn.garbage)[step % 2]
            failures = bench.power_failures
            while bench.power_failures == failures:
                bench.run_for(30)
                if bench.notecard.host_version["version"] != "1.0.0":  # nothing is missing but what is empty
                    assert {path: (bench.swan.drive / path).read_bytes() for path in files} == files
        program.cut_at = None
        before = len(bench.captured)
        while len(bench.captured) < before + 3:
            bench.run_for(60)
        bench.run(len(bench.captured))
        assert bench.notecard.update.mode == "completed"
        assert bench.notecard.host_version["version"] == "1.1.0"
        assert list(whole.queue.windows())[-1].firmware == "judder 1.1.0"
        figures = whole.figures()
    assert figures.unreported == figures.twice == 0


def test_a_drive_that_is_not_what_its_manifest_says_never_reports_a_version(tmp_path):
    with chain(tmp_path) as whole, whole.bench(image=pack("1.0.0")) as bench:
        damaged = bench.swan.drive / "lib" / "adafruit_lis3dh.py"
        damaged.write_text(damaged.read_text() + "\n")
        bench.run(3)
        assert bench.notecard.host_version is None
        assert whole.said("lib/adafruit_lis3dh.py is not the file that manifest.json names")
        figures = whole.figures()
    assert figures.stored == figures.captured  # it measures all the same


def test_code_that_hangs_on_trial_leaves_a_board_that_an_image_brings_back(tmp_path):
    """Nothing renews what holds outboard updates back; the Notecard then finds no image for this host, and waits."""
    device = tmp_path / "device"
    shutil.copytree(tree().device / "node", device / "node")
    (device / "node" / "node.py").write_text("import time\nwhile True:\n    time.sleep(60)\n")
    with chain(tmp_path / "data") as whole, whole.bench(image=pack("1.0.0")) as bench:
        bench.run(2)
        hung = code.update("1.1.0", Tree(device, tree().boot)).to_bytes()
        bench.notecard.twin.offer(Firmware("1.judder", hung))
        bench.run_for(8 * 86400)
        assert bench.swan.program.boots()
        assert bench.notecard.update.mode == "error"
        bench.notecard.twin.offer(Firmware("v2.binpack", pack("1.2.0")))
        bench.run_for(3600)
        assert bench.notecard.host_version["version"] == "1.2.0"


def no_sensor(transfer):
    return Injected(ADDRESS_NACK) if transfer.address == 0x18 else None


def test_a_board_that_cannot_measure_never_reports_a_version(tmp_path):
    with chain(tmp_path) as whole, whole.bench(image=pack("1.0.0")) as bench:
        bench.bus.faults.append(no_sensor)
        bench.run_for(1200)
        assert bench.notecard.host_version is None
        assert whole.said("no LIS3DH")
