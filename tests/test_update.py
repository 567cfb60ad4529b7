"""Updates by file on the emulated bench: a model, or the firmware's code, over the Notecard into the spare slot.

Whatever is cut off at whatever step, the board ends on the new one or on the old one, and says which.
"""

import shutil

import pytest
from tests.models import drawn

from judder import code
from judder.board import SLOTS, Tree, tree
from judder.emulator.notecard import Fault, WebResponse
from judder.emulator.notecard.line import seal
from judder.emulator.notecard.twin import Firmware
from judder.emulator.runtime import MODEL_HEAP_KB, RuntimeMissingError, micropython
from judder.update import Kind, Update

FAST = {"CAPTURE_EVERY_S": 60, "LISTEN_EVERY_S": 10, "SAMPLES": 128}


def model(seed):
    made = drawn(seed, samples=128, clusters=4)
    data = made.to_bytes()
    return data, f"{int.from_bytes(data[-4:], 'little'):08x}"


def of_model(data):
    return Update(Kind.MODEL, f"{int.from_bytes(data[-4:], 'little'):08x}", data).to_bytes()


def of_code(tmp_path, edit=lambda name, text: text):
    """Version 0.2.0 of the code, with its files changed by `edit`."""
    device = tmp_path / "edited"
    shutil.copytree(tree().device, device)
    for path in (device / "node").glob("*.py"):
        path.write_text(edit(path.name, path.read_text()))
    return code.update("0.2.0", Tree(device, tree().boot)).to_bytes()


def slots_for(bench):
    for name, size in SLOTS.items():
        (bench.swan.drive / name).write_bytes(b"\xff" * size)
    (bench.swan.drive / "slot").mkdir()


def with_slots(running):
    slots_for(running.bench)
    return running


def offer(bench, data, name="m.judder"):
    bench.notecard.twin.offer(Firmware(name, data))


def until(running, text, limit_s=3000):
    bench = running.bench
    deadline = bench.clock.now_ns() + limit_s * 10**9
    bench.swan.run(lambda: running.said(text) or bench.clock.now_ns() > deadline or not bench.swan.has_power)
    assert running.said(text), running.lines[-12:]


def in_order(running):
    """Windows as the firmware captured them."""
    stored = running.stored()
    return [stored[key] for key in running.bench.captured]


def test_a_model_arrives_is_tried_proves_itself_and_is_in_each_window(loop):
    running = with_slots(loop(settings=FAST))
    data, model_id = model(1)
    with running.bench as bench:
        bench.run(2)
        offer(bench, of_model(data))
        until(running, f"update: {model_id} is in use")
        bench.run(6)
    running.check_nothing_lost_or_doubled()
    models = [window.model for window in in_order(running)]
    assert models[0] == ""
    assert models[-1] == model_id
    assert bench.notecard.update.mode == "completed"
    assert bench.notecard.host_version["description"].startswith(f"model {model_id}, boot ")


def test_code_arrives_is_tried_proves_itself_and_is_in_each_window(loop, tmp_path):
    running = with_slots(loop(settings=FAST))
    update = of_code(tmp_path)
    with running.bench as bench:
        bench.run(2)
        offer(bench, update)
        until(running, "update: 0.2.0 is in use")
        bench.run(6)
        bench.swan.reset()
        bench.run(8)
    running.check_nothing_lost_or_doubled()
    firmware = [window.firmware for window in in_order(running)]
    assert firmware[0] == "judder 0.1.0"
    assert firmware[-1] == "judder 0.2.0"
    assert bench.notecard.host_version["version"] == "0.2.0"


def unimportable(name, text):
    return "import nothing_of_this_name\n" if name == "node.py" else text


def unstartable(name, text):
    return text.replace("self.window = Window(", "self.window = nothing(")


def mute(name, text):
    return text.replace('"req": "web.post"', '"req": "web.past"')


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (unimportable, "0.2.0 does not start: ModuleNotFoundError"),
        (unstartable, "0.2.0 does not start: NameError"),
        (mute, "0.2.0 has brought nothing to the server"),
    ],
)
def test_code_that_does_not_prove_itself_makes_way_for_the_old(loop, tmp_path, fault, reason):
    running = with_slots(loop(settings=FAST | {"CAPTURE_EVERY_S": 300}))
    with running.bench as bench:
        bench.run(2)
        offer(bench, of_code(tmp_path, fault))
        until(running, "update: 0.2.0 did not prove itself", 3 * 86400)
        bench.run(len(bench.captured) + 2)
    running.check_nothing_lost_or_doubled()
    assert running.said(reason)
    assert bench.notecard.update.mode == "error"
    assert bench.notecard.host_version["version"] == "0.1.0"
    assert len(running.said("judder 0.2.0 starts")) <= 3


def test_code_on_a_real_micropython_s_fat(loop, tmp_path):
    try:
        runtime = micropython(MODEL_HEAP_KB)
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    running = with_slots(loop(settings=FAST, runtime=runtime))
    with running.bench as bench:
        bench.run(2)
        offer(bench, of_code(tmp_path))
        until(running, "update: 0.2.0 is in use")
        bench.run(6)
    running.check_nothing_lost_or_doubled()
    assert in_order(running)[-1].firmware == "judder 0.2.0"
    assert not running.said("MemoryError")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: b"\x00" * 5000, "it is no update file"),
        (lambda data: data[:40], "it is no update file"),
        (lambda data: data[:-1], "12211 of its 12212 bytes are there"),
        (lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], "its content does not match its checksum"),
        (lambda data: Update(Kind.MODEL, "big", bytes(33000)).to_bytes(), "and the board's slots have 20992"),
        (lambda data: of_model(data[64:-8] + bytes(8)), "did not prove itself"),
    ],
)
def test_a_file_that_will_not_do_is_refused_with_the_reason_and_the_next_one_is_taken(loop, spoil, reason):
    running = with_slots(loop(settings=FAST))
    data, model_id = model(1)
    with running.bench as bench:
        bench.run(1)
        offer(bench, spoil(of_model(data)), "bad.judder")
        until(running, "update: ")
        assert reason in running.said("update: ")[0]
        assert bench.notecard.update.mode == "error"
        offer(bench, of_model(data), "good.judder")
        until(running, f"update: {model_id} is in use")
        bench.run(len(bench.captured) + 1)
    running.check_nothing_lost_or_doubled()


class Down(Fault):
    """The server is down."""

    def intercept(self, request):
        return WebResponse(503)


def test_what_is_not_ours_is_for_an_outboard_update_and_waits_until_nothing_waits_here(loop):
    running = loop(settings=FAST | {"CAPTURE_EVERY_S": 120})
    outboard = running.bench.notecard.outboard
    with running.bench as bench:
        bench.run(1)
        bench.notecard.faults.append(Down())
        bench.run_for(130)
        offer(bench, b"x" * 100_000, "v2.binpack")
        bench.run_for(600)
        assert bench.notecard.update.mode == "ready"
        assert not outboard.flashed
        bench.notecard.faults.clear()
        until(running, "an outboard update may begin")
        assert not set(bench.captured) - bench.acknowledged
        bench.run_for(60)
        assert [one.name for one in outboard.flashed] == ["v2.binpack"]
    running.check_nothing_lost_or_doubled()


# --- what a file must not do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "where", "what"),
    [
        (
            "uplink.py",
            '        version = self.request({"req": "card.version"})["version"]\n',
            "        version = nothing\n",
        ),
        ("settings.py", "def load(", "def loads("),
        ("manifest.py", "def read(", "def reads("),
        ("node.py", "            tries = capture(", "            raise OSError(5)\n            tries = capture("),
    ],
)
def test_code_that_cannot_connect_read_or_measure_makes_way_too(loop, tmp_path, name, where, what):
    def edit(one, text):
        assert one != name or where in text
        return text.replace(where, what) if one == name else text

    running = with_slots(loop(settings=FAST | {"CAPTURE_EVERY_S": 900}))
    with running.bench as bench:
        bench.run(2)
        offer(bench, of_code(tmp_path, edit))
        until(running, "update: 0.2.0 did not prove itself", 86400)
        bench.run(len(bench.captured) + 2)
    running.check_nothing_lost_or_doubled()
    assert bench.notecard.host_version["version"] == "0.1.0"


def test_what_was_in_use_before_is_used_again_without_fetching_and_what_failed_may_be_tried_again(loop):
    running = with_slots(loop(settings=FAST))
    first, second = model(1), model(2)
    spoilt = of_model(first[0][:-8] + bytes(8))
    with running.bench as bench:
        bench.run(1)
        for number, (data, said) in enumerate(
            [
                (of_model(first[0]), f"{first[1]} is in use"),
                (of_model(second[0]), f"{second[1]} is in use"),
                (of_model(first[0]), f"{first[1]} is in use"),
                (spoilt, "00000000 did not prove itself, and is not used"),
                (spoilt, "00000000 did not prove itself, and is not used"),
                (of_model(second[0]), f"{second[1]} is in use"),
            ]
        ):
            del running.lines[:]
            before = bench.notecard.executed["dfu.get"]
            offer(bench, data, f"{data[56:64].hex()}.judder")
            until(running, f"update: {said}")
            assert (bench.notecard.executed["dfu.get"] == before) == (number == 2)
            bench.run(len(bench.captured) + 1)
    running.check_nothing_lost_or_doubled()
    assert in_order(running)[-1].model == second[1]


def test_a_fetch_that_fails_for_long_is_given_up_and_the_board_is_back_on_the_network(loop):
    class Refused(Fault):
        def replies(self, request, lines):
            if request.name == "dfu.get" and request.fields.get("length"):
                return [seal({"err": "no {dfu-not-ready}"}, request.sequence)]
            return lines

    running = with_slots(loop(settings=FAST))
    with running.bench as bench:
        bench.run(1)
        bench.notecard.faults.append(Refused())
        offer(bench, of_model(model(1)[0]))
        until(running, "update: 10 failures", 7200)
        bench.run(len(bench.captured) + 2)
    running.check_nothing_lost_or_doubled()
    assert bench.notecard.update.mode == "error"
    assert bench.notecard.hub["mode"] == "continuous"


def test_what_holds_an_outboard_update_back_is_renewed_as_long_as_windows_wait(loop):
    day_ns = 86400 * 10**9
    running = loop(settings={"SAMPLES": 64, "CAPTURE_EVERY_S": 14400, "LISTEN_EVERY_S": 3600})
    with running.bench as bench:
        bench.run(1)
        bench.notecard.faults.append(Down())
        bench.run_for(14400)
        bench.clock.sleep(int(3.5 * day_ns))
        bench.run_for(1200)
        assert set(bench.captured) - bench.acknowledged
        assert bench.notecard.outboard.allowed_from_ns - bench.clock.now_ns() > 3.5 * day_ns
        bench.notecard.faults.clear()
        bench.run(len(bench.captured))
    running.check_nothing_lost_or_doubled()


def test_a_notecard_that_does_not_know_how_to_leave_mode_dfu_keeps_no_board_off_the_network(loop):
    class Refused(Fault):
        def replies(self, request, lines):
            if request.fields.get("mode") == "dfu-completed" or request.fields.get("stop"):
                return [seal({"err": "no {not-supported}"}, request.sequence)]
            return lines

    running = with_slots(loop(settings=FAST))
    data, model_id = model(1)
    with running.bench as bench:
        bench.run(1)
        bench.notecard.faults.append(Refused())
        offer(bench, of_model(data))
        until(running, f"update: {model_id} is in use")
        bench.run(len(bench.captured) + 2)
    running.check_nothing_lost_or_doubled()
    assert in_order(running)[-1].model == model_id
