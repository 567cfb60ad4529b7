"""The LIS3DH model against ST's documents: registers (DS), FIFO tables and bus times (AN3308)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from judder.emulator.clock import VirtualClock
from judder.emulator.i2c import ACK, ADDRESS_NACK, FAST_HZ, I2CBus, Injected, Transfer
from judder.emulator.lis3dh import LIS3DH

ADDRESS = 0x18
ODR_1344 = 0x97
STREAM_FTH_15 = 0x8F


class Still:
    """A constant acceleration in g."""

    def __init__(self, x=0.0, y=0.0, z=1.0):
        self.g = np.array([x, y, z])

    def acceleration(self, times_s, response):
        return np.tile(self.g * response(np.zeros(1)), (times_s.size, 1))


class Tone:
    """A sine in x, 0.5 g."""

    def __init__(self, hz):
        self.hz = hz

    def acceleration(self, times_s, response):
        g = np.zeros((times_s.size, 3))
        g[:, 0] = 0.5 * response(np.array([self.hz]))[0] * np.sin(2 * np.pi * self.hz * times_s)
        return g


class Count:
    """Distinct values: x, y, z are functions of time, so that a torn or shifted reading shows."""

    def acceleration(self, times_s, response):
        return np.stack([times_s % 1, times_s % 0.5, times_s % 0.25], axis=1)


class Host:
    """A controller on the bus with the chip, for reading as a person would write it down."""

    def __init__(self, source=None, **options):
        self.clock = VirtualClock()
        self.bus = I2CBus(self.clock, FAST_HZ)
        self.chip = LIS3DH(self.clock, source or Still(), **{"noise": False, **options})
        self.bus.attach(ADDRESS, self.chip)

    def write(self, register, *values):
        assert self.bus.transfer(Transfer(ADDRESS, bytes([register, *values]), 0)) == (ACK, b"")

    def read(self, register, length=1):
        status, _ = self.bus.transfer(Transfer(ADDRESS, bytes([register]), 0))
        assert status == ACK
        status, data = self.bus.transfer(Transfer(ADDRESS, b"", length))
        assert status == ACK
        return data

    def stream(self, ctrl1=ODR_1344, fth=15, mode=0x80):
        self.write(0x23, 0x80)
        self.write(0x24, 0x40)
        self.write(0x2E, 0)
        self.write(0x2E, mode | fth)
        self.write(0x20, ctrl1)

    def wait_samples(self, number):
        """Until `number` more samples have been taken, and a little."""
        period_ns = 1e9 / self.chip.true_odr_hz()
        self.clock.sleep(round(number * period_ns))

    def status(self):
        return self.read(0x2F)[0]

    def numbers(self):
        """Of the samples that came over the bus, in order."""
        return [number for number, _ in self.chip.given]

    def sets(self, number):
        return np.frombuffer(self.read(0xA8, 6 * number), "<i2").reshape(-1, 3)


def test_reset_values_are_the_datasheets():
    host = Host()
    assert host.read(0x0F)[0] == 0x33
    reset = {0x1E: 0x10, 0x1F: 0, 0x20: 0x07, 0x21: 0, 0x22: 0, 0x23: 0, 0x24: 0, 0x25: 0, 0x26: 0, 0x2E: 0, 0x2F: 0x20}
    assert {register: host.read(register)[0] for register in reset} == reset


def test_other_addresses_do_not_answer():
    host = Host()
    assert host.bus.transfer(Transfer(0x19, b"\x0f", 1)) == (ADDRESS_NACK, b"")


def test_writing_read_only_and_reserved_registers_is_noticed_and_does_nothing():
    host = Host()
    host.write(0x0F, 0x55)
    host.write(0x05, 1)
    assert host.read(0x0F)[0] == 0x33
    assert len(host.chip.violations) == 2


def test_sub_address_increments_only_with_bit_7_and_survives_stop():
    host = Host()
    host.write(0x20 | 0x80, 0x57, 0x00, 0x00, 0x80)
    assert host.read(0x20 | 0x80, 4) == bytes([0x57, 0, 0, 0x80])
    assert host.read(0x20, 3) == bytes([0x57] * 3)
    host.bus.transfer(Transfer(ADDRESS, b"\xa0", 0))
    host.clock.sleep(10**9)
    assert host.bus.transfer(Transfer(ADDRESS, b"", 1))[1] == b"\x57"
    assert host.bus.transfer(Transfer(ADDRESS, b"", 3))[1] == bytes([0, 0, 0x80])


def test_boot_clears_itself_and_keeps_the_user_registers():
    host = Host()
    host.write(0x20, 0x57)
    host.write(0x24, 0x80)
    assert host.read(0x24)[0] & 0x80
    host.clock.sleep(6_000_000)
    assert not host.read(0x24)[0] & 0x80
    assert host.read(0x20)[0] == 0x57


def test_fifo_source_follows_application_note_table_40():
    host = Host(odr_error=0.0)
    host.stream()
    assert host.status() == 0x20
    seen = []
    for _ in range(34):
        host.wait_samples(1)
        host.bus.transfer(Transfer(ADDRESS, b"\x2f", 0))
        seen.append(host.bus.transfer(Transfer(ADDRESS, b"", 1))[1][0])
        # the bus takes time too: keep in step with the samples
        host.clock._now_ns = round(1e9 * round(host.clock.now_ns() * 1344 / 1e9) / 1344)
    levels = [byte & 0x1F for byte in seen]
    assert levels[0] in (1, 2)
    assert sorted(levels) == levels
    for byte in seen:
        level = 32 if byte & 0x40 else byte & 0x1F
        assert bool(byte & 0x80) == (level > 15)
        assert not byte & 0x20
    assert seen[-1] == 0xDF


@pytest.mark.parametrize(
    ("hz", "registers"), [(1344, {}), (400, {"ctrl1": 0x77}), (5376, {"ctrl1": 0x9F})], ids=["1344", "400", "5376 LP"]
)
def test_the_fifo_fills_at_the_parts_own_rate(hz, registers):
    host = Host(odr_error=0.03)
    host.stream(**registers)
    started_ns = host.clock.now_ns()
    host.clock.sleep(round(20.5e9 / (hz * 1.03)) - 250_000)
    level = host.status() & 0x1F
    elapsed_s = (host.clock.now_ns() - started_ns) / 1e9
    assert abs(level - elapsed_s * hz * 1.03) <= 1.2
    assert host.chip.true_odr_hz() == pytest.approx(hz * 1.03)


def test_a_burst_reads_sets_in_order_and_wraps_at_out_z():
    host = Host(source=Count())
    host.stream()
    host.wait_samples(20)
    counts = host.sets(16)
    numbers = host.numbers()
    assert numbers == list(range(numbers[0], numbers[0] + 16))
    expected = np.array([host.chip.arrival_ns(n) / 1e9 % 1 for n in numbers])
    assert np.abs((counts[2:, 0] >> 6) * 0.004 - expected[2:]).max() <= 0.0021


def test_single_byte_reads_give_the_same_sets_as_a_burst():
    slow, fast = Host(source=Count(), seed=3), Host(source=Count(), seed=3)
    for host in (slow, fast):
        host.stream()
        host.wait_samples(12)
    burst = fast.read(0xA8, 6 * 8)
    slow.bus.transfer(Transfer(ADDRESS, b"\xa8", 0))
    single = b"".join(slow.bus.transfer(Transfer(ADDRESS, b"", 1))[1] for _ in range(6 * 8))
    assert single == burst
    assert slow.numbers() == fast.numbers()


def test_stream_mode_overwrites_the_oldest_and_counts_the_loss():
    host = Host()
    host.stream()
    host.wait_samples(50)
    assert host.status() == 0xDF
    lost = host.chip.lost
    assert 18 <= lost <= 20
    host.sets(1)
    first = host.numbers()[0]
    assert first == host.chip.lost
    host.sets(31)
    assert host.numbers() == list(range(first, first + 32))


def test_fifo_mode_stops_when_full_until_bypass():
    host = Host()
    host.stream(mode=0x40)
    host.wait_samples(100)
    assert host.status() == 0xDF
    host.sets(32)
    assert host.numbers() == list(range(32))
    host.wait_samples(10)
    assert host.status() & 0x1F == 0
    assert host.chip.lost == 0
    host.write(0x2E, 0)
    host.write(0x2E, 0x40)
    host.wait_samples(10)
    assert host.status() & 0x1F >= 9


def test_stream_to_fifo_stops_after_the_interrupt():
    host = Host()
    host.stream(mode=0xC0)
    host.wait_samples(60)
    assert host.chip.lost > 20
    host.chip.interrupt1()
    lost = host.chip.lost
    host.wait_samples(60)
    assert host.status() == 0xDF
    assert host.chip.lost == lost


def test_reading_past_the_end_gives_the_last_set_again():
    host = Host(source=Count())
    host.stream()
    host.wait_samples(3)
    host.write(0x20, 0x07)  # no more samples
    counts = host.sets(8)
    fresh = len(host.chip.given)
    assert fresh in (3, 4)
    assert (counts[fresh:] == counts[fresh - 1]).all()
    assert host.chip.overreads == 8 - fresh


def test_empty_rises_only_after_one_read_too_many():
    host = Host()
    host.stream()
    host.wait_samples(4)
    host.write(0x20, 0x07)
    level = host.status() & 0x1F
    host.sets(level)
    assert host.status() & 0x3F == 0x00
    host.sets(1)
    assert host.status() & 0x3F == 0x20
    host.chip.empty_needs_extra_read = False
    host.stream()
    host.wait_samples(4)
    host.write(0x20, 0x07)
    host.sets(host.status() & 0x1F)
    assert host.status() & 0x3F == 0x20


def test_bypass_empties_the_fifo_and_forces_its_status():
    host = Host()
    host.stream()
    host.wait_samples(10)
    host.write(0x2E, 0)
    assert host.status() == 0x20
    host.write(0x2E, STREAM_FTH_15)
    assert host.status() & 0x1F <= 1


@pytest.mark.parametrize(
    ("ctrl1", "ctrl4", "bits"), [(0x7F, 0x80, 8), (0x77, 0x80, 10), (0x77, 0x88, 12)], ids=["low power", "normal", "HR"]
)
def test_application_note_table_9_scaled_to_each_mode(ctrl1, ctrl4, bits):
    """AN table 9 is for HR at +-2 g: 350 mg is 0x15E0 and -1 g 0xC180 at the datasheet's 1 mg a digit."""
    host = Host(source=Still(0.35, -1.0, 1.0))
    host.write(0x23, ctrl4)
    host.write(0x20, ctrl1)
    host.wait_samples(20)
    counts = np.frombuffer(host.read(0xA8, 6), "<i2")
    step_mg = {8: 16, 10: 4, 12: 1}[bits]
    expected = [round(mg / step_mg) << (16 - bits) for mg in (350, -1000, 1000)]
    assert list(counts) == expected
    if bits == 12:
        assert counts[0] == 0x15E0


def test_the_fifo_is_ten_bits_wide_in_high_resolution_too():
    host = Host(source=Still(0.351, 0.353, 0.357))
    host.write(0x23, 0x88)
    host.write(0x24, 0x40)
    host.write(0x2E, STREAM_FTH_15)
    host.write(0x20, 0x77)
    host.wait_samples(12)
    assert not (host.sets(8) & 0x3F).any()


def test_saturation_and_disabled_axes():
    host = Host(source=Still(5.0, -5.0, 1.0))
    host.stream(ctrl1=0x93)  # Z off
    host.wait_samples(12)
    assert list(host.sets(10)[-1] >> 6) == [511, -512, 0]


def test_low_power_with_high_resolution_is_garbage_and_noticed():
    host = Host()
    host.write(0x23, 0x88)
    host.write(0x20, 0x9F)
    assert any("not allowed" in line for line in host.chip.violations)
    host.write(0x24, 0x40)
    host.write(0x2E, STREAM_FTH_15)
    host.wait_samples(12)
    assert host.sets(8).std() > 5000


def test_high_resolution_cuts_the_bandwidth_to_a_ninth_of_the_rate():
    def amplitude(ctrl4):
        host = Host(source=Tone(300.0))
        host.write(0x23, ctrl4)
        host.write(0x24, 0x40)
        host.write(0x2E, STREAM_FTH_15)
        host.write(0x20, ODR_1344)
        rows = []
        for _ in range(40):
            host.wait_samples(8)
            rows.append(host.sets(8))
        return np.concatenate(rows)[20:, 0].std()

    assert amplitude(0x80) > 10 * amplitude(0x88)


def test_the_high_pass_filter_takes_gravity_away():
    host = Host(source=Still(0, 0, 1))
    host.write(0x21, 0x08)
    host.stream()
    host.wait_samples(20)
    assert abs(host.sets(16)[-1, 2]) == 0


def test_noise_has_the_parts_density():
    host = Host(source=Still(0, 0, 0), noise=True)
    host.stream()
    rows = []
    for _ in range(200):
        host.wait_samples(8)
        rows.append(host.sets(host.status() & 0x1F))
    rms_mg = np.concatenate(rows).std() / 64 * 4
    assert rms_mg == pytest.approx(5.7, rel=0.06)  # 220 ug/sqrt(Hz) in 672 Hz, and 1.15 mg of quantisation


def test_status_register_shows_fresh_and_overwritten_data():
    host = Host()
    host.write(0x20, 0x57)
    assert host.read(0x27)[0] == 0x00
    host.wait_samples(1.5)
    assert host.read(0x27)[0] == 0x0F
    host.wait_samples(1)
    assert host.read(0x27)[0] == 0xFF
    host.read(0xA8, 6)
    assert host.read(0x27)[0] == 0x00


def test_without_bdu_a_pair_may_tear_and_with_it_never():
    def pair(ctrl4):
        host = Host(source=Count())
        host.write(0x23, ctrl4)
        host.write(0x20, 0x57)
        host.wait_samples(30)
        low = host.read(0x28)[0]
        first = host.chip._produced(host.clock.now_ns()) - 1
        host.wait_samples(20)
        high = host.read(0x29)[0]
        return (high << 8 | low), int(host.chip._sample(first)[0]) & 0xFFFF

    held, truth = pair(0x80)
    assert held == truth
    torn, truth = pair(0x00)
    assert torn != truth


def test_temperature_needs_adc_temp_en_and_bdu():
    host = Host()
    host.chip.temperature_degc = -3.5
    assert host.read(0x8C, 2) == b"\x00\x00"
    host.write(0x1F, 0xC0)
    assert host.read(0x8C, 2) == b"\x00\x00"
    host.write(0x23, 0x80)
    assert int.from_bytes(host.read(0x8C, 2), "little", signed=True) == -3.5 * 256


def test_brown_out_forgets_the_settings():
    host = Host()
    host.stream()
    host.wait_samples(10)
    host.chip.brown_out()
    assert host.read(0x20)[0] == 0x07
    assert host.status() == 0x20


def test_a_stuck_fifo_stays_as_it_is():
    host = Host()
    host.stream()
    host.chip.stuck_fifo = True
    host.wait_samples(40)
    assert host.status() & 0x1F == 0


def test_an_injected_eio_consumes_the_sets_it_does_not_deliver():
    host = Host()
    host.stream()
    host.wait_samples(12)
    host.bus.transfer(Transfer(ADDRESS, b"\xa8", 0))
    host.bus.faults.append(lambda transfer: Injected(status=2, consumed=True, delivered=20))
    status, data = host.bus.transfer(Transfer(ADDRESS, b"", 60))
    assert (status, len(data)) == (2, 20)
    assert len(host.chip.given) == 10


@pytest.mark.parametrize(("sets", "clocks_us"), [(1, 830), (32, 17570)])
def test_bus_time_is_the_application_notes(sets, clocks_us):
    """AN 9.5: 29 + 9 n clocks at 100 kHz; start, repeated start and stop come on top here."""
    host = Host()
    host.bus.frequency_hz = 100_000
    before_ns = host.clock.now_ns()
    host.bus.transfer(Transfer(ADDRESS, b"\xa8", 6 * sets))
    assert (host.clock.now_ns() - before_ns) / 1000 == pytest.approx(clocks_us, abs=25)


def test_drift_and_jitter_move_the_instants_as_told():
    host = Host(drift_per_s=0.01)
    host.stream()
    run = host.chip._runs[-1]
    one_second = run.taken_by(run.started_ns + 10**9)
    assert one_second == pytest.approx(1344 * 1.005, abs=1.5)
    assert run.arrival_ns(one_second - 1) <= run.started_ns + 10**9 < run.arrival_ns(one_second)
    host = Host(jitter=0.05)
    host.stream()
    steps = np.diff(host.chip._runs[-1].arrivals_ns(np.arange(2000)))
    assert steps.std() / host.chip._runs[-1].period_ns == pytest.approx(0.05 * 2**0.5, rel=0.1)


@given(st.integers(0, 10**10), st.floats(-0.1, 0.1), st.floats(-0.02, 0.02), st.sampled_from([0.0, 0.05]))
def test_samples_taken_and_their_instants_agree(elapsed_ns, odr_error, drift_per_s, jitter):
    chip = LIS3DH(VirtualClock(), Still(), odr_error=odr_error, drift_per_s=drift_per_s, jitter=jitter)
    chip.write(bytes([0x20, ODR_1344]), 0)
    run = chip._runs[-1]
    count = run.taken_by(elapsed_ns)
    assert run.arrival_ns(count) > elapsed_ns - 2
    assert count == 0 or run.arrival_ns(count - 1) <= elapsed_ns + 2


class FifoMachine(RuleBasedStateMachine):
    """Whatever a host does, no sample is given twice, out of order or lost without being counted."""

    def __init__(self):
        super().__init__()
        self.host = Host(odr_error=0.02)
        self.host.stream()
        self.given = []

    @rule(samples=st.floats(0, 70))
    def wait(self, samples):
        self.host.wait_samples(samples)

    @rule()
    def read_the_level(self):
        source = self.host.status()
        level = 32 if source & 0x40 else source & 0x1F
        before = len(self.host.chip.given)
        if level:
            self.host.sets(level)
        assert self.host.chip.overreads == 0
        self.given += self.host.numbers()[before:]

    @invariant()
    def every_sample_is_given_once_or_counted_lost(self):
        assert all(a < b for a, b in zip(self.given, self.given[1:], strict=False))
        if self.given:
            missing = self.given[-1] + 1 - len(self.given)
            assert missing <= self.host.chip.lost


TestFifoMachine = FifoMachine.TestCase
