"""Settings: every complaint names key, value and what is allowed, and the default stands."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import frame, settings
from node.meanings import MEANINGS, example
from node.settings import TABLE
from node.settings import read as settings_of


def defaults():
    return {name: default for name, default, _ in TABLE}


def values(read):
    return {name: getattr(read, name.lower()) for name in defaults()}


def test_an_empty_file_gives_the_defaults_without_a_word():
    read = settings_of("")
    assert values(read) == defaults()
    assert read.complaints == []


def test_the_example_is_toml_and_reads_back_as_the_defaults():
    assert MEANINGS.keys() == defaults().keys()
    assert tomllib.loads(example()) == defaults()
    read = settings_of(example())
    assert values(read) == defaults()
    assert read.complaints == []


def test_values_are_read_quoted_or_bare_with_comments_and_foreign_keys_left_alone():
    read = settings_of(
        'PRODUCT_UID = "com.you:vib"  # mine\r\n# LABEL = "no"\nODR_HZ = 400 # slow\nSAMPLES="512"\n'
        "DEVICE_SN = 'pump-3'\nCIRCUITPY_WEB_API_PASSWORD = \"x\"\n\n[section]"
    )
    assert read.complaints == []
    assert (read.product_uid, read.odr_hz, read.samples, read.device_sn, read.label) == (
        "com.you:vib",
        400,
        512,
        "pump-3",
        "",
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ODR_HZ = 1000", ["ODR_HZ = 1000", "10, 25, 50, 100, 200, 400, 1344", "using 1344"]),
        ("SAMPLES = 63", ["SAMPLES = 63", "64 to 4096", "using 1024"]),
        ("SAMPLES = lots", ["SAMPLES = lots", "64 to 4096"]),
        ("CAPTURE_EVERY_S = 0.5", ["CAPTURE_EVERY_S = 0.5", "1 to 86400"]),
        ("LABEL = '" + "x" * 65 + "'", ["LABEL is 65 bytes long", "at most 64"]),
        ('TRANSFER = "fast"', ["TRANSFER = fast", "chunks, stock", "using 'chunks'"]),
        ("WATCHDOG_S = 60", ["WATCHDOG_S = 60", "1800 to 86400, or 0", "using 7200"]),
        ("WATCHDOG_S = -1", ["WATCHDOG_S = -1", "1800 to 86400, or 0"]),
        ("SAMPLE_HZ = 400", ["SAMPLE_HZ is no setting", "settings.example.toml"]),
        ("ODR_HZ 400", ["'ODR_HZ 400' is not NAME = value"]),
        ("FRAME_KEY = 'c0ffee'", ["FRAME_KEY must be 32 hex digits", "judder key", "using ''"]),
        ("FRAME_KEY = '" + 31 * "c" + "g'", ["FRAME_KEY must be 32 hex digits"]),
        ("FRAME_KEY " + 32 * "c", ["'FRAME_KEY' is not NAME = value"]),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_the_default_stands(line, words):
    read = settings_of("# first line\n" + line + "\nFULL_SCALE_G = 8\n")
    assert len(read.complaints) == 1
    assert read.complaints[0].startswith("settings.toml line 2: ")
    for word in words:
        assert word in read.complaints[0]
    assert "cc" not in read.complaints[0]  # the key
    assert "c0ffee" not in read.complaints[0]
    assert values(read) == {**defaults(), "FULL_SCALE_G": 8}


@given(st.text())
def test_any_text_at_all_leaves_allowed_values(text):
    read = settings_of(text)
    for name, default, allowed in TABLE:
        value = getattr(read, name.lower())
        assert settings.check(name, str(value), default, allowed) == value


def test_the_hash_follows_the_values_and_nothing_else():
    assert settings_of("").hash == settings_of("# hello\nODR_HZ = 1344\n").hash
    assert settings_of("").hash != settings_of("ODR_HZ = 400\n").hash


def test_the_key_is_in_no_hash():
    """It may come from settings.toml or from the Notecard; and it is a secret."""
    read = settings_of(f"FRAME_KEY = '{'0aF' * 10}00'\n")
    assert (read.frame_key, read.complaints) == ("0aF" * 10 + "00", [])
    assert read.hash == settings_of("").hash


def test_a_missing_file_gives_the_defaults(tmp_path):
    assert values(settings.load(str(tmp_path / "settings.toml"))) == defaults()
    (tmp_path / "settings.toml").write_text("SAMPLES = 256\n")
    assert settings.load(str(tmp_path / "settings.toml")).samples == 256


def test_the_example_file_is_the_tables(request):
    assert (request.config.rootpath / "device" / "settings.example.toml").read_text() == example()


def test_a_file_that_is_no_text_is_a_complaint_and_no_crash(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_bytes(b'LABEL = "L\xe4uft"\n')
    read = settings.load(str(path))
    assert values(read) == defaults()
    (complaint,) = read.complaints
    assert "not UTF-8" in complaint
    path.write_bytes('LABEL = "Läuft"\r\nSAMPLES = 64\r\n'.encode())
    read = settings.load(str(path))
    assert (read.label, read.samples, read.complaints) == ("Läuft", 64, [])


def test_a_ring_that_holds_no_window_is_made_larger_with_a_complaint():
    read = settings_of("SAMPLES = 4096\nRING_BYTES = 16384\n")
    (complaint,) = read.complaints
    assert "RING_BYTES = 16384 holds no window of SAMPLES = 4096" in complaint


@given(st.integers(64, 4096), st.integers(16384, 262144))
def test_any_window_fits_the_ring(samples, ring_bytes):
    read = settings_of(f"SAMPLES = {samples}\nRING_BYTES = {ring_bytes}\n")
    assert read.ring_bytes >= frame.max_length(samples, len(frame.text_block(*["x" * 255] * 6)))
    assert read.ring_bytes == ring_bytes or read.complaints


@pytest.mark.parametrize("watchdog_s", [0, 1800, 86400])
def test_the_watchdog_may_be_off(watchdog_s):
    read = settings_of(f"WATCHDOG_S = {watchdog_s}\n")
    assert (read.watchdog_s, read.complaints) == (watchdog_s, [])


def test_a_watchdog_that_would_not_wait_for_a_window_is_given_time_with_a_complaint():
    read = settings_of("WATCHDOG_S = 1800\nSAMPLES = 4096\nODR_HZ = 10\n")
    (complaint,) = read.complaints
    assert "WATCHDOG_S = 1800 is less than SAMPLES = 4096 at ODR_HZ = 10 may take; using 3276" in complaint
    assert read.watchdog_s == 3276
    assert settings_of("WATCHDOG_S = 0\nSAMPLES = 4096\nODR_HZ = 10\n").complaints == []


def test_a_complaint_moves_no_cursor_and_is_short():
    (complaint,) = settings_of("ODR_HZ = \x1b[2J\r" + "9" * 6000).complaints
    assert "ODR_HZ = ?[2J?999" in complaint
    assert complaint.endswith("using 1344")
    assert len(complaint) < 200


def test_a_file_of_something_else_does_not_fill_the_heap_with_complaints(tmp_path):
    complaints = settings_of("what\n" * 1000).complaints
    assert len(complaints) == 13
    assert complaints[-1] == "settings.toml line 13, and maybe more: wrong, too"
    path = tmp_path / "settings.toml"
    path.write_text("SAMPLES = 64\n" * 2000)
    read = settings.load(str(path))
    assert (read.samples, len(read.complaints)) == (1024, 1)
    assert "longer than 16384 bytes" in read.complaints[0]
