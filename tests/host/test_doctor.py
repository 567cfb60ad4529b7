"""judder doctor on an emulated board: each thing that is wrong is one line, with what to do next."""

import json

import pytest
from tests.desk import desks, full_desk, install
from tests.host.test_cli import judder
from tests.host.test_deploy import port, seen

from judder import usb
from judder.board import SLOTS
from judder.doctor import examine


@pytest.fixture
def new_desk(tmp_path):
    """Makes a board with the firmware on it, its sensor and its Notecard; `prepare` may spoil something."""

    def make(prepare=lambda desk: None, *, with_firmware=True, **options):
        drive = tmp_path / "drive"
        drive.mkdir()
        if with_firmware:
            install(drive)
        desk = full_desk(tmp_path, drive=drive, **options)
        prepare(desk)
        return switch_on(desk)

    with desks() as switch_on:
        yield make


def examined(desk):
    found = list(examine(str(desk.wait_for_port())))
    return {finding.check: finding for finding in found}, [finding for finding in found if finding.ok is False]


def test_a_board_in_order(new_desk):
    desk = new_desk()
    found = list(examine(str(desk.wait_for_port())))
    checks = {finding.check: finding for finding in found if finding.ok is not None or finding.check != "drive"}
    assert [finding.text for finding in found if finding.ok is False] == []
    assert checks["runtime"].text == "CircuitPython 10.3.1 on swan_r5"
    assert checks["drive"].text.startswith("belongs to the firmware")
    assert checks["firmware"].text == "as here"
    assert checks["i2c answers"].text == "0x17 0x18"
    assert checks["i2c at 400 khz"].text == "reliable"
    assert checks["notecard firmware"].text == desk.bench.notecard.version
    assert float(checks["odr measured"].text.split()[0]) == pytest.approx(1344, rel=0.06)
    assert int(checks["flash free"].text.split()[0]) > 100
    missing = [finding.text for finding in found if finding.text.endswith("no updates by file: judder deploy")]
    assert missing == [f"{', '.join(SLOTS)}: not there, and without them no updates by file: judder deploy"]
    desk.wait_for("captured")  # the firmware runs again


def test_what_stopping_the_firmware_costs_is_told(new_desk):
    desk = new_desk()  # whose server acknowledges nothing
    desk.wait_for("2 waiting")  # a window and a report
    found = list(examine(str(desk.path)))
    (told,) = [finding.text for finding in found if finding.text.startswith("stopped at the console")]
    assert int(told.removeprefix("stopped at the console; windows not sent yet, and lost: ")) >= 1


def test_the_command_prints_and_exits(new_desk):
    desk = new_desk()
    ended = judder("doctor", "--port", desk.path)
    assert "ok firmware" in ended.stdout
    assert "all well" in ended.stdout
    told = json.loads(judder("doctor", "--port", desk.path, "--json").stdout)
    assert told["well"] is True
    assert {"check": "firmware", "ok": True, "text": "as here"} in told["findings"]


def test_without_firmware(new_desk):
    desk = new_desk(with_firmware=False)
    _, ill = examined(desk)
    assert [finding.check for finding in ill] == ["drive", "firmware"]
    assert "judder deploy" in ill[0].text
    assert ill[1].text == "judder's firmware is not on the board: judder deploy"
    judder("doctor", "--port", desk.path, code=1)


def test_a_strangers_program_is_not_started(new_desk):
    def leave_a_stranger(desk):
        (desk.swan.drive / "main.py").write_text("while True:\n    __import__('time').sleep(1)\n")

    desk = new_desk(leave_a_stranger, with_firmware=False)
    _, ill = examined(desk)
    assert ill[-1].text == "judder's firmware is not on the board: judder deploy"


def test_an_older_firmware(new_desk):
    desk = new_desk(
        lambda desk: (desk.swan.drive / "node" / "ring.py").write_text(
            (desk.swan.drive / "node" / "ring.py").read_text() + "# older\n"
        )
    )
    _, ill = examined(desk)
    assert [finding.text for finding in ill] == ["files that differ from those here: 1: judder deploy"]


def test_a_program_in_the_way(new_desk):
    desk = new_desk(lambda desk: (desk.swan.drive / "code.py").write_text("print('Hello World!')\n"))
    _, ill = examined(desk)
    assert [finding.check for finding in ill] == ["firmware"]


def test_service_mode(new_desk):
    desk = new_desk(lambda desk: (desk.swan.drive / "service").touch())
    _, ill = examined(desk)
    assert [finding.check for finding in ill] == ["drive"]
    assert "delete its file `service`, if it has one, and press RESET without USR" in ill[0].text


def test_safe_mode(new_desk):
    desk = new_desk()
    desk.do(lambda: desk.swan.reset("PROGRAMMATIC"))
    _, ill = examined(desk)
    assert [finding.check for finding in ill] == ["safe mode"]
    assert "CircuitPython is in safe mode (PROGRAMMATIC)" in ill[0].text
    assert "press RESET once" in ill[0].text


def test_another_board(new_desk):
    _, ill = examined(new_desk(board="raspberry_pi_pico"))
    assert "this is a raspberry_pi_pico" in ill[0].text


def test_a_firmware_that_cannot_be_imported(new_desk):
    def spoil(desk):
        (desk.swan.drive / "node" / "bus.py").write_text("broken(\n")

    _, ill = examined(new_desk(spoil))
    assert any(finding.check == "selftest" and "judder deploy" in finding.text for finding in ill)


TROUBLES = {
    "no Notecard": lambda desk: desk.bench.bus.chips.pop(0x17),
    "no LIS3DH": lambda desk: desk.bench.bus.chips.pop(0x18),
    "wrong setting": lambda desk: (desk.swan.drive / "settings.toml").write_text("SAMPLES = 7\n"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_doctor_says_what_the_firmware_says(new_desk, trouble):
    """The same line on the board's own console."""
    said = []
    desk = new_desk(TROUBLES[trouble], on_line=lambda device, line: said.append(line))
    desk.wait_for("waiting" if trouble != "wrong setting" else "captured")
    before = list(said)
    _, ill = examined(desk)
    assert len(ill) >= 1
    for finding in ill:
        assert any(finding.text in line for line in before), (finding.text, before)


def test_no_board_at_all(monkeypatch):
    monkeypatch.setattr(usb, "look", lambda: seen())
    (finding,) = examine()
    assert finding.ok is False
    assert "plug in the Swan's own socket" in finding.text


def test_two_boards(monkeypatch):
    monkeypatch.setattr(usb, "look", lambda: seen(port("/dev/a", usb.SWAN), port("/dev/b", usb.SWAN)))
    (finding,) = examine()
    assert "choose one with --port" in finding.text


def test_a_board_that_goes_away_meanwhile(new_desk):
    desk = new_desk()
    for finding in examine(str(desk.path)):
        if finding.check == "runtime":
            desk.do(desk.swan.power_off)
        last = finding
    assert last.ok is False
    assert "the board went away" in last.text
