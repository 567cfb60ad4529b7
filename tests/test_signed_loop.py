"""The whole loop with signed frames: nothing unsigned or forged is stored, and a wrong key costs no window."""

import itertools
import shutil

import pytest
from tests.loop import Loop
from tests.test_loop import HOUR_S, safe

from judder.board import Tree, tree
from judder.config import Config
from judder.emulator.notecard import Fault
from judder.emulator.notecard.line import seal
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.server import background
from judder.signature import Signatures, device_key
from judder.window import is_signed

MASTER = "00112233445566778899aabbccddeeff"
DEVICE = "dev:864475000000000"  # of the bench with seed 0
KEY = device_key(bytes.fromhex(MASTER), DEVICE).hex()
WRONG = "ff" * 16
HINT = "FRAME_KEY has to be what `judder key DEVICE` prints there"


@pytest.fixture
def loop(tmp_path):
    """Makes a loop; its server takes signed frames only."""
    config = Config(data=tmp_path / "data", port=0, frame_master_key=MASTER, require_signature=True)
    with background(config) as server:

        def make(key, **kwargs):
            kwargs["settings"] = kwargs.get("settings", {}) | ({"FRAME_KEY": key} if key else {})
            return Loop(server, **kwargs)

        yield make


def kept(bench):
    """What the Notecard has in its database, besides the number of the boot."""
    notefile = bench.notecard.notefiles.files.get("judder.dbx")
    return {name: note.body for name, note in notefile.notes.items() if name != "boot"} if notefile else {}


def restart(bench, settings):
    bench.swan.power_off()
    (bench.swan.drive / "settings.toml").write_text(settings)
    bench.swan.power_on()


@pytest.mark.parametrize("name", ["cpython", "micropython"])
@pytest.mark.parametrize("transfer", ["chunks", "stock"])
def test_signed_windows_are_stored(loop, name, transfer):
    try:
        runtime = RUNTIMES[name]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    running = loop(KEY.upper(), runtime=runtime, settings={"TRANSFER": transfer})
    with running.bench as bench:
        bench.run(4)
    running.check_nothing_lost_or_doubled()
    believed = Signatures([bytes.fromhex(MASTER)], required=True)
    assert all(believed.fault(DEVICE, window.frame) is None for window in running.stored().values())
    assert not [line for line in running.lines if KEY in line.lower()]


def test_a_wrong_key_costs_no_window_and_when_it_is_put_right_all_arrive(loop):
    running = loop(WRONG)
    with running.bench as bench:
        bench.swan.run(lambda: len(bench.captured) >= 6 and safe(running))
        assert running.said("server answered 403: ")
        assert all(HINT in line for line in running.said("403"))
        assert not running.stored()
        assert running.server.queue.quarantined()
        restart(bench, f'CAPTURE_EVERY_S = 60\nFRAME_KEY = "{KEY}"\n')
        bench.run(8)
        assert kept(bench) == {"key": {"key": KEY}}
    assert not bench.given_up
    assert len({boot for boot, _ in running.stored()}) == 2
    running.check_nothing_lost_or_doubled()


def test_a_board_without_a_key_is_told_and_its_windows_arrive_when_it_has_one(loop):
    running = loop("")
    with running.bench as bench:
        bench.swan.run(lambda: len(bench.captured) >= 3 and safe(running))
        assert running.said(HINT)
        assert not running.stored()
        restart(bench, f'CAPTURE_EVERY_S = 60\nFRAME_KEY = "{KEY}"\n')
        bench.run(5)
    running.check_nothing_lost_or_doubled()


def test_the_key_outlives_an_update_that_wipes_the_drive(loop):
    running = loop(KEY)
    with running.bench as bench:
        bench.run(2)
        hashes = {window.settings for window in running.stored().values()}
        restart(bench, "CAPTURE_EVERY_S = 60\n")
        bench.run(4)
        assert kept(bench) == {"key": {"key": KEY}}
        assert not bench.notecard.notefiles.files["judder.dbx"].pending()  # nothing for Notehub
    running.check_nothing_lost_or_doubled()
    assert {window.settings for window in running.stored().values()} == hashes
    assert not running.said("403")


class Refusing(Fault):
    """A Notecard that will not do these requests."""

    def __init__(self, bench, *names):
        self.names = names
        self.asked = []
        self._files = bench.notecard.notefiles.files
        bench.notecard.faults.append(self)

    def replies(self, request, lines):
        if not request.name.startswith("note.") or request.fields.get("note") != "key":
            return lines
        self.asked.append(request.name)
        if request.name not in self.names:
            return lines
        self._files.pop("judder.dbx", None)  # what it has just done all the same
        return [seal({"err": "no {not-supported}"}, request.sequence)]


def test_a_notecard_that_keeps_no_notes_is_one_line_and_frames_are_signed(loop):
    running = loop(KEY)
    Refusing(running.bench, "note.add", "note.update", "note.get")
    with running.bench as bench:
        bench.run(3)
        assert not kept(bench)
    assert len(running.said("FRAME_KEY has to be set again after an update that wipes settings.toml")) == 1
    running.check_nothing_lost_or_doubled()


@pytest.mark.parametrize("refused", [(), ("note.update",)])
def test_whichever_request_makes_a_note_the_key_is_kept(loop, refused):
    """No document was found that says what each does with a note that is there, or not."""
    running = loop(KEY)
    refusing = Refusing(running.bench, *refused)
    with running.bench as bench:
        bench.run(1)
        assert kept(bench) == {"key": {"key": KEY}}
        assert refusing.asked[-1] == ("note.add" if refused else "note.update")
        refusing.asked.clear()
        restart(bench, f'CAPTURE_EVERY_S = 60\nFRAME_KEY = "{KEY}"\n')
        bench.run(2)
    assert refusing.asked == ["note.get"]  # and flash is not written at each boot


def test_a_key_that_is_none_is_not_used(loop):
    running = loop(KEY)
    running.bench.notecard.notefiles.add("judder.dbx", "key", {"key": "not hex"}, b"", 0, 0)
    with running.bench as bench:
        bench.run(2)
        assert kept(bench) == {"key": {"key": KEY}}
    running.check_nothing_lost_or_doubled()


def test_a_notecard_that_does_not_answer_for_the_key_is_asked_again(loop):
    """Unsigned frames would all be refused."""
    running = loop("")
    running.bench.notecard.notefiles.add("judder.dbx", "key", {"key": KEY}, b"", 0, 0)

    class Mute(Fault):
        calls = itertools.count()

        def replies(self, request, lines):
            return [] if request.name == "note.get" and next(self.calls) < 12 else lines

    running.bench.notecard.faults.append(Mute())
    with running.bench as bench:
        bench.run(3)
    assert running.said("no good answer from the Notecard to note.get")
    assert not running.said("403")
    running.check_nothing_lost_or_doubled()


@pytest.mark.parametrize("name", ["wasm", "broken"])
def test_a_runtime_that_cannot_sign_says_so_and_sends_unsigned(tmp_path, name):
    runtime, firmware = None, None
    if name == "wasm":
        try:
            runtime = RUNTIMES[name]()
        except RuntimeMissingError as error:
            pytest.skip(str(error))
    else:  # CBC that starts anew with each call
        shutil.copytree(tree().device, tmp_path / "device")
        path = tmp_path / "device" / "node" / "signature.py"
        right = "return aesio.AES(key, aesio.MODE_CBC, bytes(_BLOCK)).encrypt_into"
        assert right in path.read_text()
        wrong = "return lambda a, b: aesio.AES(key, aesio.MODE_CBC, bytes(_BLOCK)).encrypt_into(a, b)"
        path.write_text(path.read_text().replace(right, wrong))
        firmware = Tree(tmp_path / "device", tree().boot)
    with background(Config(data=tmp_path / "data", port=0, frame_master_key=MASTER)) as server:
        running = Loop(server, runtime=runtime, firmware=firmware, settings={"FRAME_KEY": KEY})
        with running.bench as bench:
            bench.run(2)
        running.check_nothing_lost_or_doubled()
        assert not [key for key, window in running.stored().items() if is_signed(window.frame)]
    assert len(running.said("this runtime has no AES that works: frames go unsigned")) == 1


def test_signing_may_begin_while_windows_are_under_way(tmp_path):
    """Stored unsigned, but the answer was lost; sent again it is signed, and no conflict."""
    with background(Config(data=tmp_path / "data", port=0, frame_master_key=MASTER)) as server:
        running = Loop(server)

        class LostAnswers(Fault):
            def answer(self, request, response):
                return None

        deaf = LostAnswers()
        running.bench.notecard.faults.append(deaf)
        with running.bench as bench:
            bench.swan.run(lambda: len(bench.captured) >= 3 and safe(running))
            assert running.stored()
            bench.notecard.faults.remove(deaf)
            restart(bench, f'CAPTURE_EVERY_S = 60\nFRAME_KEY = "{KEY}"\n')
            bench.run(6)
        assert not bench.given_up
        assert not running.said("refused by the server")
        running.check_nothing_lost_or_doubled()
        assert {is_signed(window.frame) for window in running.stored().values()} == {False, True}


def test_what_another_device_signs_is_not_stored_under_this_one_s_name(loop):
    """The bench's DeviceUID, and a key that the other device rightly has."""
    other = device_key(bytes.fromhex(MASTER), "dev:864475000000001").hex()
    running = loop(other)
    with running.bench as bench:
        bench.run_for(HOUR_S / 6)
        assert bench.captured
        assert not bench.given_up
    assert not running.stored()
    assert all("not that of" in reason for reason, _ in running.server.queue.quarantined())


def test_windows_of_another_notecard_s_time_do_not_hold_up_new_ones(loop):
    """The Notecard breaks while windows wait: they carry its DeviceUID, which the new one's key does not speak for."""
    running = loop(KEY)
    with running.bench as bench:
        bench.run(2)
        bench.notecard.link.outages.append((bench.clock.now_ns(), bench.clock.now_ns() + HOUR_S * 10**9))
        waiting = len(bench.captured) + 30
        bench.swan.run(lambda: len(bench.captured) >= waiting and safe(running))
        old = set(bench.captured)
        bench.notecard.device = bench.device = "dev:864475099999999"
        bench.notecard.notefiles.files.clear()
        new_key = device_key(bytes.fromhex(MASTER), bench.device).hex()
        restart(bench, f'CAPTURE_EVERY_S = 60\nFRAME_KEY = "{new_key}"\n')
        bench.run_for(3 * HOUR_S)
    fresh = bench.captured.keys() - old
    stored = running.stored()
    assert len(fresh) > 100
    assert len(fresh & stored.keys()) > len(fresh) - 20
    assert not bench.given_up
    assert {window.device for key, window in stored.items() if key in fresh} == {bench.device}
