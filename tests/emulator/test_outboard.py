"""An outboard update end to end: the emulated Notecard writes the emulated Swan's flash, whatever happens meanwhile."""

import itertools
import json
import random
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from judder import fat12
from judder.binpack import Binpack, Part, pack, unpack
from judder.board import RING_FILE
from judder.emulator.bench import Bench
from judder.emulator.flash import BASE_ADDRESS, ERASE_NS, PAGE_BYTES, PAGES, PROGRAM_NS, Torn
from judder.emulator.machine import Machine
from judder.emulator.notecard.faults import BadPage, EraseTimeout, StalledDownload
from judder.emulator.notecard.link import NEVER
from judder.emulator.notecard.outboard import RETRY_NS, SEND_NS
from judder.emulator.notecard.twin import Firmware
from judder.emulator.notecard.update import MODES
from judder.emulator.program import ERASE_ALL_NS, PROGRAM_ADDRESS
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.emulator.swan import Timing

SECOND = 10**9
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
MAIN = """
import time
from node import VERSION
print("version", VERSION)
while True:
    time.sleep(4)
"""
REMOUNT = b"import storage\nstorage.remount('/', False)\n"
INTERPRETER_BYTES = 3 * PAGE_BYTES
UPDATE_S = 60
"""More than download, flashing and start of such an image take."""


def drive(version, **more):
    files = {"main.py": MAIN.encode(), "node/__init__.py": f"VERSION = {version!r}\n".encode()}
    return fat12.volume(files | more).rstrip(b"\xff")


def parts(version, files=None, fs_only=False):
    interpreter = random.Random(version).randbytes(INTERPRETER_BYTES)
    fs = Part("fs", BASE_ADDRESS, drive(version, **(files or {})))
    return (fs,) if fs_only else (Part("interpreter", PROGRAM_ADDRESS, interpreter), fs)


def binpack(version, host="stm32", **options):
    return pack(Binpack(WHEN, host, parts(version, **options)))


OLD, NEW = binpack("1"), binpack("2")
PAGES_WRITTEN = sum(-(-len(part.data) // PAGE_BYTES) for part in parts("2"))


def bench_with(image=OLD, **options):
    """A board from `image`, with a Notecard as firmware that wants outboard updates leaves it behind."""
    bench = Bench(Machine.demo(), None, image=image, timing=Timing(stall_probability=0.0), **options)
    card = bench.notecard
    card.hub |= {"mode": "continuous", "sync": True}
    card.link.connect_delay_ns = SECOND
    card.link.set_mode("continuous")
    card.outboard.name = "stm32"
    return bench


def offer(bench, image=NEW, version="2"):
    bench.notecard.twin.offer(Firmware(f"{version}.bin", image, version=version))


def runs(bench):
    """The version that the board said last, "nothing" if it does not run; a new drive says hello."""
    if not bench.swan.runs:
        return "nothing"
    said = [line for line in bench.swan.lines if line.startswith(("version", "Hello World"))]
    return said[-1].removeprefix("version ")


def phases(bench):
    return [phase for _, phase, _ in bench.notecard.twin.phases]


def holds(bench, image):
    """Whether the flash is the image, byte for byte."""
    return bench.swan.program.holds(unpack(image).parts)


# --- a board from an image --------------------------------------------------------------------------------------------


def test_a_board_runs_what_is_in_its_image():
    with bench_with(binpack("1", files={"model-a.bin": b"model", RING_FILE: b"\xff" * 8192})) as bench:
        bench.run_for(1)
        assert runs(bench) == "1"
        drive = bench.swan.drive
        assert (drive / "model-a.bin").read_bytes() == b"model"
        assert not (drive / RING_FILE).exists()
        assert not (drive / "settings.toml").exists()
        assert bench.swan.program.steps == 0


def test_settings_are_for_a_drive_that_has_none():
    with bench_with(settings={"LABEL": "idle"}) as bench:
        assert (bench.swan.drive / "settings.toml").read_text() == "LABEL = 'idle'\n"
        offer(bench)
        bench.run_for(UPDATE_S)
        assert runs(bench) == "2"
        assert not (bench.swan.drive / "settings.toml").exists()  # any image wipes the drive
    own = {"settings.toml": b'LABEL = "own"\n'}
    with bench_with(binpack("1", files=own), settings={"LABEL": "idle"}) as bench:
        assert (bench.swan.drive / "settings.toml").read_bytes() == own["settings.toml"]


def test_the_ring_of_an_image_lies_on_the_flash():
    main = b"""
import os, time
file = open("ring.bin", "r+b")
file.seek(512)
file.write(b"a" * 512)
os.sync()
print("version", file.seek(0, 2), os.listdir())
while True:
    time.sleep(4)
"""
    with bench_with(binpack("1", files={"boot.py": REMOUNT, "main.py": main, RING_FILE: b"\xff" * 8192})) as bench:
        bench.run_for(1)
        assert runs(bench) == "8192 ['boot.py', 'boot_out.txt', 'main.py', 'node', 'ring.bin']"
        assert b"a" * 512 in b"".join(bench.swan.program.pages)


def test_what_ends_in_an_error_idles_as_a_board_does():
    with bench_with(binpack("1", files={"main.py": b"print('version', 1)\n1 / 0\n"})) as bench:
        bench.run_for(100)
        assert runs(bench) == "1"
        assert "ZeroDivisionError: division by zero" in bench.swan.lines
        offer(bench)
        bench.run_for(UPDATE_S)
        assert runs(bench) == "2"


def test_an_image_and_another_source_of_firmware_are_refused(tmp_path):
    with pytest.raises(ValueError, match="give no firmware"):
        bench_with(drive=tmp_path)


# --- an update --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("erases_all", [True, False])
def test_a_good_update_ends_on_the_new_version(erases_all):
    with bench_with() as bench:
        bench.notecard.outboard.erases_all = erases_all
        program = bench.swan.program
        far = program.pages[200]
        far[:] = b"far".ljust(PAGE_BYTES)
        offer(bench)
        bench.run_for(UPDATE_S)
        assert runs(bench) == "2"
        assert holds(bench, NEW)
        assert bench.swan.boots == 2
        assert bench.notecard.update.mode == "completed"
        assert phases(bench) == ["downloading", "ready", "updating", "completed"]
        assert program.steps == PAGES_WRITTEN * (1 if erases_all else 2) + erases_all
        assert sum(program.erases) == (2 * PAGES if erases_all else PAGES_WRITTEN)
        assert (far[:3] == b"far") is not erases_all
        assert program.drive.erases == program.erases[PAGES:]


def test_the_time_it_takes_is_that_of_its_pages():
    with bench_with() as bench:
        offer(bench)
        bench.run_for(UPDATE_S)
        at = {phase: utc_s for utc_s, phase, _ in bench.notecard.twin.phases}
    expected_s = (ERASE_ALL_NS + PAGES_WRITTEN * (SEND_NS + PROGRAM_NS)) / 1e9
    assert at["completed"] - at["updating"] == pytest.approx(expected_s, abs=1.2)
    assert at["ready"] - at["downloading"] == pytest.approx(len(NEW) / 20_000, abs=1.2)


def test_page_by_page_each_erase_takes_its_time_too():
    spans = {}
    for erases_all in (True, False):
        with bench_with() as bench:
            bench.notecard.outboard.erases_all = erases_all
            offer(bench)
            while bench.notecard.update.mode != "updating":
                bench.run_for(0.01)
            began_ns = bench.clock.now_ns()
            while bench.notecard.update.mode == "updating":
                bench.run_for(0.01)
            spans[erases_all] = bench.clock.now_ns() - began_ns
    more_ns = PAGES_WRITTEN * ERASE_NS - ERASE_ALL_NS
    assert spans[False] - spans[True] == pytest.approx(more_ns, abs=0.03 * SECOND)


def test_the_board_says_nothing_while_it_is_written():
    with bench_with() as bench:
        bench.notecard.update.bytes_per_s = 2000
        offer(bench)
        seen = set()
        while bench.notecard.update.mode != "completed":
            bench.run_for(0.5)
            seen.add((bench.notecard.update.mode == "updating", runs(bench), bench.swan.in_bootloader))
            assert bench.swan.has_power
        assert {(False, "1", False), (True, "nothing", True)} <= seen
        assert all(state == (updating, "nothing", True) for state in seen if (updating := state[0]))


def test_micropython_finds_its_files_in_the_image_s_fat():
    try:
        runtime = RUNTIMES["micropython"]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    main = b"""
import time
file = open("ring.bin", "r+b")
print("version", len(file.read()))
while True:
    time.sleep(4)
"""
    new = binpack("2", files={"main.py": main, RING_FILE: bytes(8192)})
    with bench_with(runtime=runtime) as bench:
        bench.run_for(1)
        assert runs(bench) == "1"
        offer(bench, new)
        bench.run_for(UPDATE_S)
        assert runs(bench) == "8192"
        assert holds(bench, new)


# --- what card.dfu allows ---------------------------------------------------------------------------------------------


def ask(bench, **request):
    """The reply to somebody on the card's own USB port."""
    card = bench.notecard
    card.feed(json.dumps(request).encode() + b"\n")
    while not card.available():
        bench.clock.sleep(card.request_ns)
    return json.loads(card.read(10_000))


def test_off_holds_it_and_on_lets_it_go():
    with bench_with() as bench:
        ask(bench, req="card.dfu", off=True)
        offer(bench)
        bench.run_for(600)
        assert (bench.notecard.update.mode, runs(bench)) == ("ready", "1")
        bench.notecard.brown_out()  # the setting and the image are in its flash
        bench.run_for(600)
        assert (bench.notecard.update.mode, bench.notecard.outboard.allowed_from_ns) == ("ready", NEVER)
        ask(bench, req="card.dfu", on=True)
        bench.run_for(UPDATE_S)
        assert runs(bench) == "2"


def test_a_pause_ends_by_itself():
    with bench_with() as bench:
        ask(bench, req="card.dfu", off=True, seconds=300)
        offer(bench)
        bench.run_for(290)
        assert runs(bench) == "1"
        bench.run_for(10 + UPDATE_S)
        assert runs(bench) == "2"


@pytest.mark.parametrize("name", ["-", "esp32", "stm32-bi"])
def test_only_a_host_of_that_name_is_flashed(name):
    with bench_with() as bench:
        ask(bench, req="card.dfu", name=name)
        offer(bench)
        bench.run_for(UPDATE_S)
        assert (bench.notecard.update.mode, runs(bench)) == ("ready", "1")
        ask(bench, req="card.dfu", name="stm32")
        bench.run_for(UPDATE_S)
        assert runs(bench) == "2"


def test_requests_that_would_disturb_it_are_refused():
    with bench_with() as bench:
        offer(bench)
        while bench.notecard.update.mode != "updating":
            bench.run_for(0.1)
        for request in (
            {"req": "dfu.get", "length": 0},
            {"req": "dfu.status", "stop": True},
            {"req": "dfu.status", "off": True},
            {"req": "card.dfu", "off": True},
            {"req": "card.restart"},
            {"req": "card.restore"},
        ):
            assert "{dfu-in-progress}" in ask(bench, **request)["err"]
        assert ask(bench, req="dfu.status")["mode"] == "updating"
        bench.run_for(UPDATE_S)
        assert runs(bench) == "2"


def test_the_card_resets_the_host_when_it_starts_unless_told_not_to():
    with bench_with() as bench:
        bench.run_for(1)
        bench.notecard.brown_out()
        assert bench.swan.boots == 2
        bench.run_for(5)
        ask(bench, req="card.dfu", stop=True)
        bench.notecard.brown_out()
        bench.run_for(5)
        assert bench.swan.boots == 2


# --- power ------------------------------------------------------------------------------------------------------------


def steps(erases_all):
    return range(1, PAGES_WRITTEN * (1 if erases_all else 2) + erases_all + 1)


def survives(cut_at, torn, *, erases_all=True, one_supply=True, again=0):
    """It ends on the new version though the power goes at a step, and again at step `again` of the second try."""
    with bench_with(seed=cut_at) as bench:
        program, card = bench.swan.program, bench.notecard
        bench.one_supply = one_supply
        card.outboard.erases_all = erases_all
        program.cut_at, program.torn = cut_at, torn
        offer(bench)
        bench.run_for(20)
        between = runs(bench)
        assert bench.power_failures == 1
        assert card.update.mode == "ready-retry"
        assert card.restarts == one_supply
        program.cut_at = program.steps + again if again else None
        bench.run_for(2 * RETRY_NS / 1e9 + UPDATE_S)
        assert runs(bench) == "2"
        assert holds(bench, NEW)
        assert card.update.mode == "completed"
        assert card.outboard.tries == 2 + bool(again)
        told = phases(bench)
        assert told[:4] == ["downloading", "ready", "updating", "ready-retry"]
        assert told[-2:] == ["updating", "completed"]
        return between


def test_a_cut_at_every_step_bricks_nothing():
    torn = itertools.cycle([Torn.garbage, Torn.erased])
    between = [survives(cut_at, next(torn)) for cut_at in steps(erases_all=True)]
    assert set(between) == {"nothing", "Hello World!"}  # dead, or without a file system, until the second try


def test_a_cut_at_every_step_of_an_update_page_by_page_with_a_supply_of_its_own():
    torn = itertools.cycle([Torn.untouched, Torn.partial, Torn.erased])
    between = [survives(cut_at, next(torn), erases_all=False, one_supply=False) for cut_at in steps(erases_all=False)]
    assert between[0] == "1"  # nothing was touched
    assert {"nothing", "Hello World!"} < set(between)


@pytest.mark.parametrize("again", [1, 3, PAGES_WRITTEN])
def test_a_cut_during_the_second_try_is_survived_too(again):
    survives(4, Torn.erased, again=again)


def test_a_cut_that_is_no_step_s_breaks_it_off_too():
    with bench_with() as bench:
        offer(bench)
        while bench.notecard.update.mode != "updating":
            bench.run_for(0.1)
        bench.swan.power_off()
        bench.run_for(RETRY_NS / 1e9 + UPDATE_S)
        assert (runs(bench), bench.notecard.outboard.tries) == ("2", 2)


def test_files_old_and_new_run_together():
    main = b"import time, one, two\nprint('version', one.VERSION, two.VERSION)\nwhile True:\n    time.sleep(2)\n"

    def mixed(version):
        module = f"VERSION = {version}\n".encode()
        return binpack(version, files={"main.py": main, "one.py": module, "pad": bytes(8192), "two.py": module})

    with bench_with(mixed("1")) as bench:
        bench.notecard.outboard.erases_all = False
        program = bench.swan.program
        program.cut_at, program.torn = 2 * (PAGES_WRITTEN + 2) - 1, Torn.untouched
        offer(bench, mixed("2"))
        bench.run_for(20)
        assert runs(bench) == "2 1"
        bench.run_for(RETRY_NS / 1e9 + UPDATE_S)
        assert runs(bench) == "2 2"


# --- the network ------------------------------------------------------------------------------------------------------


def test_a_restart_of_the_card_begins_the_download_anew():
    big = binpack("2", files={"model-a.bin": bytes(200_000)})
    with bench_with() as bench:
        bench.notecard.update.bytes_per_s = len(big) // 100
        offer(bench, big)
        bench.run_for(60)
        assert bench.notecard.update.mode == "downloading"
        bench.notecard.brown_out()
        bench.run_for(60)
        assert bench.notecard.update.mode == "downloading"
        bench.run_for(60 + 2 * UPDATE_S)
        assert runs(bench) == "2"
        assert phases(bench)[:4] == ["downloading", "idle", "downloading", "ready"]


def test_a_download_waits_for_the_network_and_stalls():
    with bench_with() as bench:
        bench.run_for(5)
        bench.notecard.update.bytes_per_s = 1000
        offer(bench)
        bench.run_for(5)
        assert bench.notecard.update.mode == "downloading"
        now_ns = bench.clock.now_ns()
        bench.notecard.link.outages.append((now_ns, now_ns + 200 * SECOND))
        bench.notecard.faults.append(StalledDownload(seconds=300))
        bench.run_for(450)
        assert runs(bench) == "1"
        bench.run_for(100 + UPDATE_S)
        assert runs(bench) == "2"


def test_the_phases_wait_for_the_network():
    with bench_with() as bench:
        bench.run_for(5)
        ask(bench, req="card.dfu", off=True, seconds=60)
        offer(bench)
        bench.run_for(20)
        now_ns = bench.clock.now_ns()
        bench.notecard.link.outages.append((now_ns, now_ns + 300 * SECOND))
        bench.run_for(60 + UPDATE_S)
        assert runs(bench) == "2"
        assert phases(bench) == ["downloading", "ready"]
        bench.run_for(300)
        assert phases(bench) == ["downloading", "ready", "updating", "completed"]
        assert bench.notecard.twin.host_status == "successful firmware update"


# --- wrong images -----------------------------------------------------------------------------------------------------

SPOILT = bytearray(NEW)
SPOILT[-100] ^= 1


@pytest.mark.parametrize(
    ("image", "token"),
    [
        (bytes(SPOILT), "{host-dfu-fatal}"),
        (NEW[:-1000], "{host-dfu-fatal}"),
        (binpack("2", host="esp32"), "{host-dfu-fatal}"),
        (bytes(PAGE_BYTES * (2 * PAGES + 1)), "{host-dfu-fatal}"),
    ],
    ids=["one wrong bit", "cut short", "for another host", "too big"],
)
def test_a_wrong_image_is_refused_before_anything_is_erased(image, token):
    with bench_with() as bench:
        bench.notecard.update.bytes_per_s = 10**6
        offer(bench, image)
        bench.run_for(600)
        assert bench.notecard.update.mode == "error"
        assert token in bench.notecard.twin.host_status
        assert phases(bench)[-1] == "error"
        assert (runs(bench), bench.swan.program.steps) == ("1", 0)
        offer(bench)
        bench.run_for(UPDATE_S)
        assert runs(bench) == "2"


def test_a_page_that_arrives_wrong_is_found_at_the_end_and_not_tried_again():
    with bench_with() as bench:
        bench.notecard.faults.append(BadPage())
        offer(bench)
        bench.run_for(600)
        assert bench.notecard.update.mode == "error"
        assert "{odfu-fail}" in bench.notecard.update.status
        assert (runs(bench), bench.swan.has_power, bench.notecard.outboard.tries) == ("nothing", True, 1)
        offer(bench, binpack("3"), "3")
        bench.run_for(UPDATE_S)
        assert runs(bench) == "3"


def test_a_chip_erase_that_times_out_leaves_the_board_as_it_was():
    with bench_with() as bench:
        bench.notecard.faults.append(EraseTimeout())
        offer(bench)
        bench.run_for(600)
        assert bench.notecard.update.status == "can't initiate chip erase: send command 44 timeout {odfu-fail}"
        assert (runs(bench), bench.notecard.outboard.tries) == ("1", 1)


@pytest.mark.parametrize("erases_all", [True, False])
def test_an_image_of_the_drive_alone_needs_an_interpreter_that_stays(erases_all):
    with bench_with() as bench:
        bench.notecard.outboard.erases_all = erases_all
        offer(bench, binpack("2", fs_only=True))
        bench.run_for(UPDATE_S)
        assert bench.notecard.update.mode == "completed"
        assert runs(bench) == ("nothing" if erases_all else "2")
        offer(bench, binpack("3"), "3")
        bench.run_for(UPDATE_S)
        assert runs(bench) == "3"


def test_a_bare_program_is_written_to_the_beginning_of_the_flash():
    vectors = struct.pack("<II", 0x200A0000, PROGRAM_ADDRESS + 0x199)
    program = vectors + bytes(range(256)) * 40
    with bench_with() as bench:
        offer(bench, program)
        bench.run_for(UPDATE_S)
        assert bench.notecard.update.mode == "completed"
        assert bench.swan.program.read(PROGRAM_ADDRESS, len(program)) == program
        assert runs(bench) == "Hello World!"  # an interpreter it may be, on an erased drive


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"<html>" * 1000, bytes(30_000)])
def test_rubbish_kills_the_board_until_a_good_image_comes(rubbish):
    with bench_with() as bench:
        offer(bench, rubbish)
        bench.run_for(3600)
        assert bench.notecard.update.mode == "completed"
        assert (runs(bench), bench.swan.has_power) == ("nothing", True)
        assert bench.clock.now_ns() >= 3600 * SECOND
        offer(bench, NEW, "3")
        bench.run_for(UPDATE_S)
        assert runs(bench) == "2"


# --- anything in any order --------------------------------------------------------------------------------------------


IMAGES = {version: binpack(version) for version in "123"}


class Updates(RuleBasedStateMachine):
    """Offers, cuts, restarts and permissions: it ends on the last good image whenever that is allowed."""

    def __init__(self):
        super().__init__()
        self.bench = bench_with(IMAGES["1"])
        self.bench.swan.power_on()
        self.offered, self.allowed = "1", True

    @initialize(erases_all=st.booleans(), one_supply=st.booleans(), torn=st.sampled_from(Torn))
    def kind(self, erases_all, one_supply, torn):
        self.bench.notecard.outboard.erases_all = erases_all
        self.bench.one_supply = one_supply
        self.bench.swan.program.torn = torn

    @rule(version=st.sampled_from("123"))
    def offer(self, version):
        self.offered = version
        offer(self.bench, IMAGES[version], version)

    @rule(rubbish=st.sampled_from([b"rubbish", bytes(SPOILT)]))
    def offer_rubbish(self, rubbish):
        self.offered = None
        offer(self.bench, rubbish, "rubbish")

    @rule(ahead=st.integers(1, 2 * PAGES_WRITTEN))
    def cut(self, ahead):
        self.bench.swan.program.cut_at = self.bench.swan.program.steps + ahead

    @rule()
    def pull_the_plug(self):
        self.bench.swan.power_off()

    @rule()
    def restart(self):
        self.bench.notecard.brown_out()

    @rule(allowed=st.booleans())
    def allow(self, allowed):
        self.allowed = allowed
        self.bench.notecard.outboard.allowed_from_ns = 0 if allowed else NEVER

    @rule(seconds=st.sampled_from([0.5, 3, 8, 70]))
    def wait(self, seconds):
        self.bench.run_for(seconds)

    @precondition(lambda self: self.allowed and self.offered)
    @rule()
    def settle(self):
        self.bench.swan.program.cut_at = None
        self.bench.run_for(RETRY_NS / 1e9 + 2 * UPDATE_S)
        assert self.bench.notecard.update.mode in ("completed", "idle")
        assert runs(self.bench) == self.offered
        assert holds(self.bench, IMAGES[self.offered])

    @invariant()
    def says_what_it_may(self):
        assert self.bench.notecard.update.mode in MODES
        assert not self.bench.notecard.bugs

    def teardown(self):
        if self.allowed and self.offered:
            self.settle()
        self.bench.swan.close()


Updates.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestUpdates = Updates.TestCase
