"""The command line as its users meet it: a real process, its output, its exit code."""

import csv
import io
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from tests.frames import encode, encode_report, golden, motor, window

from judder import __version__, decode
from judder.signature import device_key


def judder(*arguments, code=0, cwd=None, **environment):
    ended = subprocess.run(
        [sys.executable, "-m", "judder", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "160"} | environment,
    )
    assert ended.returncode == code, ended.stderr
    return ended


def complaint(*arguments, **kwargs):
    """The one line that a wrong call gets."""
    ended = judder(*arguments, code=2, **kwargs)
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("judder: ")
    return ended.stderr


@pytest.fixture
def body(tmp_path):
    path = tmp_path / "body.bin"
    names = ("a gap counted in the next", "a window of the demo's kind")
    path.write_bytes(b"".join(bytes.fromhex(golden()[name]["frame"]) for name in names))
    return path


def test_import_judder_needs_numpy_only():
    """What somebody's server gets that only decodes."""
    code = "import sys, judder; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "numpy" in loaded
    assert not loaded & {
        "cryptography",
        "aiohttp",
        "typer",
        "rich",
        "pydantic",
        "pydantic_settings",
        "uvloop",
        "sqlite3",
        "asyncio",
    }


def test_help_and_version():
    assert judder("--version").stdout == f"{__version__}\n"
    assert all(command in judder("--help").stdout for command in ("demo", "serve", "decode"))


def test_decode_shows_one_line_a_window(body):
    lines = judder("decode", body).stdout.splitlines()
    assert len(lines) == 3
    assert "00000001:0" in lines[1]
    assert "deadbeef:7" in lines[2]
    assert "1344.00" in lines[2]
    assert "idle" in lines[2]


def test_decode_to_json_is_exact(body):
    windows = [json.loads(line) for line in judder("decode", body, "--json").stdout.splitlines()]
    for found, expected in zip(windows, decode(body.read_bytes()), strict=True):
        assert np.array_equal(np.array(found["acceleration"], np.float32), expected.acceleration)
        assert (found["boot"], found["sequence"]) == (expected.boot, expected.sequence)
        assert found["interval_s"] == expected.interval_s
        assert found["samples_lost"] == expected.samples_lost


def test_decode_shows_reports_beside_windows(body, tmp_path):
    path = tmp_path / "reports.bin"
    said = {"captured": 5, "reset": "POWER_ON\x1b[2J", "later": {"a": [None]}}
    path.write_bytes(encode_report(said, ["dev:[1]", *[""] * 5], 7, 0x80000002, 1790000000000000) + body.read_bytes())
    shown = judder("decode", path).stdout
    assert "report 00000007:2147483650 of dev:[1], 2026-09-21 14:13:20 UTC" in shown
    assert "  captured: 5\n  reset: POWER_ON?[2J\n" in shown
    assert "deadbeef:7" in shown
    windows = list(map(json.loads, judder("decode", path, "--json").stdout.splitlines()))
    (report,) = map(json.loads, judder("decode", path, "--json", "--reports").stdout.splitlines())
    assert report["report"] == said
    assert (report["boot"], report["sequence"], report["written_at"][:10]) == (7, 0x80000002, "2026-09-21")
    assert len(windows) == 2


def test_decode_to_csv_is_exact_and_can_be_replayed(body, tmp_path):
    text = judder("decode", body, "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    one, two = decode(body.read_bytes())
    assert len(rows) == len(one) + len(two)
    assert np.float32(rows[len(one)]["x_m_s2"]) == two.acceleration[0, 0]
    assert rows[0]["time_s"] == ""
    assert float(rows[-1]["time_s"]) == pytest.approx(1023 * two.interval_s)
    alone = tmp_path / "alone.csv"
    alone.write_text("\n".join([text.splitlines()[0], *text.splitlines()[1 + len(one) :]]))
    shown = judder("demo", "--windows", 1, "--replay", alone, "--json", "--data", tmp_path / "data")
    assert json.loads(shown.stdout)["windows_stored"] == 1


def test_decode_to_npz_is_exact_and_can_be_replayed(tmp_path):
    path = tmp_path / "one.bin"
    path.write_bytes(encode(window(motor(600), interval_ns=744048)))
    judder("decode", path, "--npz", tmp_path / "exactly.this")
    (tmp_path / "exactly.this").rename(tmp_path / "one.npz")
    (expected,) = decode(path.read_bytes())
    with np.load(tmp_path / "one.npz") as found:
        assert np.array_equal(found["acceleration"], expected.acceleration)
        assert found["interval_s"] == expected.interval_s
    shown = judder("demo", "--windows", 1, "--replay", tmp_path / "one.npz", "--json", "--data", tmp_path / "data")
    assert json.loads(shown.stdout)["windows_stored"] == 1


def test_decode_goes_on_behind_a_bad_frame_and_says_so(body):
    damaged = bytearray(body.read_bytes())
    damaged[80] ^= 1
    body.write_bytes(damaged)
    ended = judder("decode", body, code=1)
    assert "deadbeef:7" in ended.stdout
    assert ended.stderr == f"judder: {body}: at byte 0: the frame's CRC does not match\n"


def test_decode_shows_texts_from_the_air_as_they_are(tmp_path):
    path = tmp_path / "m.bin"
    path.write_bytes(encode(window(motor(8)), ["[red]d\nx", "", "", "", "[/foo]", ""]))
    shown = judder("decode", path).stdout
    assert "[red]d?x" in shown
    assert "[/foo]" in shown


def test_decode_says_what_is_wrong_with_files_before_anything_else(tmp_path, body):
    (tmp_path / "junk.bin").write_bytes(bytes(40))
    ended = judder("decode", tmp_path / "junk.bin", "--npz", tmp_path / "o.npz", code=1)
    assert "magic is missing" in ended.stderr
    assert ended.stderr.count("\n") == 1
    (tmp_path / "one.bin").write_bytes(encode(window(motor(8))))
    assert "No such file" in complaint("decode", tmp_path / "one.bin", "--npz", "/nowhere/o.npz")
    assert "must be above 0" in complaint("decode", body, "--article", "--interval-ms", "nan")


def test_a_folder_with_brackets_in_its_name(tmp_path):
    assert "m[x]" in judder("demo", "--windows", 1, "--data", tmp_path / "m[x]").stdout


def test_decode_of_the_article_s_stream(tmp_path):
    path = tmp_path / "article.bin"
    path.write_bytes(struct.pack("<6f", 0.5, 1.5, 9.75, 0.25, 1.25, 9.5))
    (line,) = judder("decode", "--article", "--interval-ms", 2.5, "--json", path).stdout.splitlines()
    assert json.loads(line)["acceleration"] == [[0.5, 1.5, 9.75], [0.25, 1.25, 9.5]]
    assert json.loads(line)["interval_s"] == 0.0025
    path.write_bytes(bytes(13))
    assert "13 bytes are no whole number of samples" in judder("decode", "--article", path, code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("decode", "x", "--json", "--csv"), "choose one of --json, --csv, --npz"),
        (("decode", "x", "--interval-ms", 2), "--interval-ms goes with --article"),
        (("demo", "--fault", "gremlins"), "--fault gremlins is unknown; one of: nack, eio"),
        (("demo", "--replay", "nothing.csv"), "nothing.csv: No such file"),
        (("demo", "--data", "/dev/null/x"), "cannot use folder /dev/null/x"),
        (("serve", "--host", "0.0.0.0"), "set JUDDER_INGEST_TOKEN"),
        (("serve", "--article-interval-ms", -1), "article_interval_ms"),
    ],
)
def test_a_wrong_call_gets_one_line(tmp_path, arguments, reason):
    assert reason in complaint(*arguments, cwd=tmp_path)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    ended = judder("decode", tmp_path / "none.bin", code=1)
    assert ended.stderr == f"judder: {tmp_path / 'none.bin'}: No such file or directory\n"


def test_demo_prints_one_object_with_the_promised_fields(tmp_path):
    ended = judder("demo", "--windows", 4, "--devices", 2, "--seed", 3, "--data", tmp_path, "--json")
    report = json.loads(ended.stdout)
    assert list(report) == [
        *("windows_captured", "posts", "windows_stored", "windows_delivered", "lost", "duplicates"),
        *("samples_lost", "samples_lost_reported", "interval_error_ppm_rms", "interval_error_ppm_max"),
        *("bytes_on_air", "bytes_article", "peak_hz_true", "peak_hz_seen", "windows_reported_lost"),
    ]
    assert report["windows_captured"] == report["windows_stored"] == 8
    assert report["windows_delivered"] == 8
    assert report["bytes_article"] == 8 * 1024 * 12


def test_demo_shows_the_last_window_and_says_what_was_real(tmp_path):
    shown = judder("demo", "--windows", 2, "--data", tmp_path, PYTHONIOENCODING="utf-8").stdout
    assert "strongest at 29.2" in shown
    assert "Emulated: the machine, LIS3DH" in shown
    assert "Real and unmodified: the firmware" in shown
    assert str(tmp_path / "windows.sqlite") in shown
    assert any("\u2800" < character <= "\u28ff" for character in shown)
    plain = judder("demo", "--windows", 1, "--data", tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C").stdout
    assert "####" in plain


def test_demo_into_a_folder_with_windows_of_an_earlier_run_counts_its_own(tmp_path):
    for seed in (1, 2):
        ended = judder("demo", "--windows", 3, "--seed", seed, "--data", tmp_path, "--json")
        assert json.loads(ended.stdout)["windows_stored"] == 3


def test_demo_minds_no_setting_of_the_real_server(tmp_path):
    (tmp_path / "judder.toml").write_text("nonsense = 1\n")
    for name, value in (("JUDDER_INGEST_TOKEN", "secret"), ("JUDDER_HOST", "0.0.0.0"), ("JUDDER_PORT", "x")):
        judder("demo", "--windows", 1, "--json", "--data", tmp_path / "data", cwd=tmp_path, **{name: value})


def test_demo_with_the_same_seed_is_the_same(tmp_path):
    reports = [
        json.loads(judder("demo", "--windows", 3, "--seed", 9, "--data", tmp_path / str(i), "--json").stdout)
        for i in range(2)
    ]
    assert reports[0] == reports[1]


def test_the_faults_are_listed():
    names = [line.split()[0] for line in judder("demo", "--fault", "list").stdout.splitlines()]
    assert {"nack", "eio", "stall", "badbin", "lost-reply", "offline", "server500", "html200"} <= set(names)


def test_key_prints_a_board_s_line_and_makes_master_keys(tmp_path):
    name, made = judder("key", "--new").stdout.strip().split("=")
    assert name == "JUDDER_FRAME_MASTER_KEY"
    assert len(bytes.fromhex(made)) == 16
    assert json.loads(judder("key", "--new", "--json").stdout)["frame_master_key"] != made
    keys = {"JUDDER_FRAME_MASTER_KEY": made}
    line = judder("key", "dev:1", cwd=tmp_path, **keys).stdout
    assert line == f'FRAME_KEY = "{device_key(bytes.fromhex(made), "dev:1").hex()}"\n'
    assert judder("key", "dev:2", cwd=tmp_path, **keys).stdout != line
    rotating = {"JUDDER_FRAME_MASTER_KEY": "00" * 16, "JUDDER_FRAME_MASTER_KEY_NEXT": made}
    assert judder("key", "dev:1", cwd=tmp_path, **rotating).stdout == line  # boards move to the next one
    found = json.loads(judder("key", "dev:1", "--json", cwd=tmp_path, **keys).stdout)
    assert found == {"device": "dev:1", "frame_key": line.split('"')[1]}
    assert made not in judder("config", "check", cwd=tmp_path, **keys).stdout


def test_key_says_what_it_needs(tmp_path):
    assert "--new" in complaint("key")
    assert "--new" in complaint("key", "dev:1", "--new")
    assert "judder key --new" in complaint("key", "dev:1", cwd=tmp_path)
    assert "no DeviceUID" in complaint("key", "pump-3", cwd=tmp_path)
