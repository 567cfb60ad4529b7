"""Updates by file on the emulated bench: a model, or the firmware's code, over the Notecard into the spare slot.

Whatever is cut off at whatever step, the board ends on the new one or on the old one, and says which.
"""

import json

import pytest
from tests.models import drawn

from judder import fat12
from judder.board import tree
from judder.emulator.notecard.twin import Firmware
from judder.update import Kind, Update

SLOTS = {"model-a.bin": 32768, "model-b.bin": 32768, "code-a.bin": 163840, "code-b.bin": 163840}
FAST = {"CAPTURE_EVERY_S": 60, "LISTEN_EVERY_S": 10, "SAMPLES": 128}


def model(seed):
    made = drawn(seed, samples=128, clusters=4)
    data = made.to_bytes()
    return data, f"{int.from_bytes(data[-4:], 'little'):08x}"


def of_model(data):
    return Update(Kind.MODEL, f"{int.from_bytes(data[-4:], 'little'):08x}", data).to_bytes()


def of_code(version, edit=lambda name, text: text):
    files = {
        f"node/{path.name}": edit(path.name, path.read_text()).encode()
        for path in sorted((tree().device / "node").glob("*.py"))
    }
    volume = fat12.volume(files, sectors=320, root_entries=16, label="JUDDER")
    return Update(Kind.CODE, version, volume.rstrip(b"\xff")).to_bytes()


def with_slots(running):
    for name, size in SLOTS.items():
        (running.bench.swan.drive / name).write_bytes(b"\xff" * size)
    (running.bench.swan.drive / "slot").mkdir()
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
    assert models[0] == "" and models[-1] == model_id
    assert bench.notecard.update.mode == "completed"
    assert bench.notecard.host_version["description"] == f"model {model_id}"


def test_code_arrives_is_tried_proves_itself_and_is_in_each_window(loop):
    running = with_slots(loop(settings=FAST))
    update = of_code("0.2.0", lambda name, text: text.replace(" starts", " starts") + "\n")
    with running.bench as bench:
        bench.run(2)
        offer(bench, update)
        until(running, "update: 0.2.0 is in use")
        bench.run(6)
        bench.swan.reset()
        bench.run(8)
    running.check_nothing_lost_or_doubled()
    firmware = [window.firmware for window in in_order(running)]
    assert firmware[0] == "judder 0.1.0" and firmware[-1] == "judder 0.2.0"
    assert bench.notecard.host_version["version"] == "0.2.0"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda name, text: "import nothing_of_this_name\n" if name == "node.py" else text, id="no import"),
        pytest.param(lambda name, text: text.replace("self.window = Window(", "self.window = nothing("), id="no start"),
        pytest.param(lambda name, text: text.replace('"req": "web.post"', '"req": "web.past"'), id="no post"),
    ],
)
def test_code_that_does_not_prove_itself_makes_way_for_the_old(loop, fault):
    running = with_slots(loop(settings=FAST))
    with running.bench as bench:
        bench.run(2)
        offer(bench, of_code("0.2.0", fault))
        until(running, "update: 0.2.0 did not prove itself", 3 * 86400)
        bench.run(len(bench.captured) + 2)
    running.check_nothing_lost_or_doubled()
    assert bench.notecard.update.mode == "error"
    assert bench.notecard.host_version["version"] == "0.1.0"
    assert len(running.said("judder 0.2.0 starts")) <= 3
