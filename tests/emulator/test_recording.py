"""Recordings: what is read from files, what is refused, and what the emulated chip makes of them."""

import wave

import numpy as np
import pytest

from judder.emulator.clock import VirtualClock
from judder.emulator.i2c import I2CBus, Transfer
from judder.emulator.lis3dh import ADDRESS, LIS3DH, response
from judder.emulator.recording import Recording, RecordingError

RATE_HZ = 6400.0


def tones(count=6400, rate_hz=RATE_HZ):
    """x: 50 Hz; y: 120 Hz; z: 900 Hz and gravity; in g."""
    t = np.arange(count) / rate_hz
    x, y, z = (a * np.sin(2 * np.pi * f * t) for a, f in ((0.3, 50), (0.2, 120), (0.5, 900)))
    return np.stack([x, y, z + 1], axis=1)


def csv_file(path, samples, header="x_g,y_g,z_g", lead="# rate_hz: 6400\n"):
    path.write_text(lead + header + "\n" + "\n".join(",".join(f"{v:.9g}" for v in row) for row in samples))
    return path


def unfiltered(frequencies_hz):
    return np.ones_like(frequencies_hz)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "factor"), [("_g", 1), ("_mg", 1000), ("_m_s2", 9.80665)])
def test_csv_columns_name_their_unit(tmp_path, suffix, factor):
    header = ",".join(axis + suffix for axis in "xyz")
    found = Recording.load(csv_file(tmp_path / "r.csv", tones(100) * factor, header))
    assert np.allclose(found.samples_g, tones(100), atol=1e-6)
    assert found.rate_hz == 6400


def test_csv_with_a_time_column_in_any_order_and_others_to_ignore(tmp_path):
    samples = tones(200)
    rows = [f"{i},a,{z:.9g},{x:.9g},{i / 6400:.6f},{y:.9g}" for i, (x, y, z) in enumerate(samples)]
    path = tmp_path / "r.csv"
    path.write_text("n,note,z_g,x_g,time_s,y_g\n" + "\n".join(rows))
    found = Recording.load(path)
    assert np.allclose(found.samples_g, samples, atol=1e-6)
    assert found.rate_hz == pytest.approx(6400, rel=1e-4)


def test_unit_and_rate_from_the_call(tmp_path):
    path = csv_file(tmp_path / "r.csv", tones(100), "x,y,z", lead="")
    found = Recording.load(path, "mg", 800.0)
    assert found.samples_g[:, 2].mean() == pytest.approx(1e-3, rel=0.3)
    assert found.rate_hz == 800


def test_npz(tmp_path):
    np.savez(tmp_path / "r.npz", acceleration=tones(100) * 9.80665, interval_s=1 / 6400, unit="m/s2")
    found = Recording.load(tmp_path / "r.npz")
    assert np.allclose(found.samples_g, tones(100))
    assert found.rate_hz == pytest.approx(6400)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_wav(tmp_path, width):
    path = tmp_path / "r.wav"
    codes = np.rint(tones(1000) / 2 * 2 ** (8 * width - 1)).astype("<i4")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(3)
        file.setsampwidth(width)
        file.setframerate(6400)
        file.writeframes(codes.reshape(-1, 1).view(np.uint8)[:, :width].tobytes())
    found = Recording.load(path, "2g")
    assert found.rate_hz == 6400
    assert np.abs(found.samples_g - tones(1000)).max() < 2 / 2 ** (8 * width - 2)


@pytest.mark.parametrize(
    ("name", "content", "unit", "rate_hz", "reason"),
    [
        ("r.txt", "", None, None, "give .csv, .npz or .wav"),
        ("none.csv", None, None, None, "No such file"),
        ("r.csv", "", None, None, "is empty"),
        ("r.csv", "a,b\n1,2\n", None, None, "columns a, b: it needs x, y and z"),
        ("r.csv", "x_g,y_mg,z_g\n1,2,3\n", None, None, "all as x_m_s2"),
        ("r.csv", "x,y,z\n" + "1,2,3\n" * 99, None, 100, "does not say its unit"),
        ("r.csv", "x,y,z\n" + "1,2,3\n" * 99, "furlong", 100, "unit 'furlong' is unknown; give g, mg or m/s2"),
        ("r.csv", "x_g,y_g,z_g\n" + "1,2,3\n" * 99, "mg", 100, "is in g, --replay-unit says mg"),
        ("r.csv", "x_g,y_g,z_g\n" + "1,2,3\n" * 99, None, None, "does not say its rate"),
        ("r.csv", "x_g,y_g,z_g\n" + "1,2,3\n" * 99, None, -5, "must be above 0"),
        ("r.csv", "# rate_hz: fast\nx_g,y_g,z_g\n1,2,3", None, None, "line 1: rate_hz: 'fast' is not a number"),
        ("r.csv", "# rate_hz: 100\nx_g,y_g,z_g\n" + "1,2,3\n" * 99, None, 200, "says 100 Hz, --replay-rate-hz 200"),
        ("r.csv", "# rate_hz: 100\nx_g,y_g,z_g\n1,2,3\n1,2\n", None, None, "line 4: 2 columns"),
        ("r.csv", "# rate_hz: 100\nx_g,y_g,z_g\n1,2,3\n1,two,3\n", None, None, "line 4: 'two' is not a number"),
        ("r.csv", "# rate_hz: 100\nx_g,y_g,z_g\n1,2,3\n", None, None, "1 samples are too few"),
        (
            "r.csv",
            "# rate_hz: 100\nx_g,y_g,z_g\n" + "1,2,3\n" * 70 + "nan,2,3\n",
            None,
            None,
            "sample 70 is not a finite",
        ),
        ("r.csv", "time_s,x_g,y_g,z_g\n" + "0,1,2,3\n" * 99, None, None, "not evenly spaced"),
        (
            "r.csv",
            "time_s,x_g,y_g,z_g\n" + "".join(f"{i},1,2,3\n" for i in range(99) if i != 50),
            None,
            None,
            "not evenly spaced (1 to 2 s)",
        ),
        (
            "r.csv",
            "# rate_hz: 3000\nx_g,y_g,z_g,time_s\n" + "".join(f"1,2,3,{i / 100}\n" for i in range(99)),
            None,
            None,
            "its time_s 100 Hz",
        ),
        ("r.csv", "# rate_hz: 0\nx_g,y_g,z_g\n" + "1,2,3\n" * 99, None, None, "must be above 0"),
        ("r.csv", "# rate_hz: 1e300\nx_g,y_g,z_g\n" + "1,2,3\n" * 99, None, None, "at most 1e+07"),
        ("r.csv", "x_g,y_g,z_g\n" + "1,2,3\n" * 99, None, 0, "--replay-rate-hz 0"),
        ("r.csv", "x_g,y_g,z_g\n" + "1,2,3\n" * 99, None, float("nan"), "--replay-rate-hz nan"),
        ("r.csv", "x_g,y_g,z_g\n" + "1e308,2,3\n" * 99, None, 100, "is the unit right?"),
        ("r.csv", "# rate_hz: 100\nx_g,y_g,z_g\n1,2," + "3" * 200000, None, None, "cannot be read"),
        ("r.csv", b"\xff\xfe\x00\x81", None, None, "not a text file"),
        ("r.npz", b"PK\x03\x04 no", None, None, "no npz file"),
        ("r.npz", b"junk", None, None, "no npz file"),
        ("r.wav", b"RIFFjunk", "2g", None, "no PCM WAV file"),
    ],
)
def test_a_file_that_cannot_be_played_is_refused_in_one_line(tmp_path, name, content, unit, rate_hz, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecordingError) as caught:
        Recording.load(path, unit, rate_hz)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_npz_and_wav_of_the_wrong_shape_are_refused(tmp_path):
    np.savez(tmp_path / "r.npz", data=tones(100))
    with pytest.raises(RecordingError, match=r"data \(100, 3\): it needs an array acceleration"):
        Recording.load(tmp_path / "r.npz")
    with wave.open(str(tmp_path / "r.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2000))
    with pytest.raises(RecordingError, match="1 channels of 16 bits"):
        Recording.load(tmp_path / "r.wav", "2g")


# --- played -----------------------------------------------------------------------------------------------------------


def test_between_its_samples_it_is_the_band_limited_signal():
    rng = np.random.default_rng(1)
    times_s = rng.uniform(0.1, 0.9, 500)
    played = Recording(tones(), RATE_HZ).acceleration(times_s, unfiltered)
    t = times_s[:, None]
    true = np.concatenate(
        [0.3 * np.sin(2 * np.pi * 50 * t), 0.2 * np.sin(2 * np.pi * 120 * t), 1 + 0.5 * np.sin(2 * np.pi * 900 * t)],
        axis=1,
    )
    assert np.abs(played - true).max() < 2e-4


def test_it_plays_over_and_over():
    recording = Recording(tones(), RATE_HZ)
    times_s = np.linspace(0.2, 0.8, 50)
    assert np.allclose(recording.acceleration(times_s, unfiltered), recording.acceleration(times_s + 7, unfiltered))


def spectrum_in_the_chip(source, odr_error=0.0):
    """Peak amplitudes of 1344 samples of the emulated LIS3DH in normal mode: bins of 1 Hz."""
    clock = VirtualClock()
    chip = LIS3DH(clock, source, odr_error=odr_error, seed=1)
    bus = I2CBus(clock)
    bus.attach(ADDRESS, chip)
    clock.charge(10_000_000)
    for register, value in ((0x20, 0x97), (0x23, 0x80), (0x24, 0x40), (0x2E, 0x80)):
        bus.transfer(Transfer(ADDRESS, bytes([register, value]), 0))
    data = b""
    while len(data) < 6 * (1344 + 10):
        clock.charge(5_000_000)
        bus.transfer(Transfer(ADDRESS, b"\x2f", 0))
        level = bus.transfer(Transfer(ADDRESS, b"", 1))[1][0] & 31
        if level:
            bus.transfer(Transfer(ADDRESS, b"\xa8", 0))
            data += bus.transfer(Transfer(ADDRESS, b"", 6 * level))[1]
    counts = np.frombuffer(data, "<i2").reshape(-1, 3)[10 : 10 + 1344] >> 6
    return np.abs(np.fft.rfft(counts * 0.004, axis=0)) * 2 / 1344


def test_the_chip_samples_it_and_folds_down_what_its_filter_lets_through():
    """900 Hz lies above half of 1344 Hz: it must appear at 444 Hz, as weak as the chip's filter makes it."""
    found = spectrum_in_the_chip(Recording(tones(), RATE_HZ))
    chain = response(672.0, 0.0)
    assert found[50, 0] == pytest.approx(0.3, rel=0.03)
    assert found[120, 1] == pytest.approx(0.2, rel=0.03)
    assert found[444, 2] == pytest.approx(0.5 * chain(np.array([900.0]))[0], rel=0.05)
    others = found[1:].copy()
    others[[49, 119, 443]] = 0
    assert others.max() < 0.003  # noise and rounding


def test_a_recording_slower_than_the_chip_gets_no_images():
    found = spectrum_in_the_chip(Recording(tones(400, 400.0)[:, :], 400.0))
    assert found[50, 0] == pytest.approx(0.3, rel=0.03)
    assert found[350, 0] < 0.003
    assert found[450, 0] < 0.003
