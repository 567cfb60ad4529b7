"""What every engine behind the five verbs has to do, whatever it is made of; with a model, and with crashes.

An engine is a class with `put claim done retry dead hold reopen close` that starts from what the last one of the same
folder has committed. Add one to ENGINES to hold it to the same.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from judder.queue import Queue
from judder.records import Entry, Outcome, State

ENGINES = [Queue]


class Clock:
    def __init__(self):
        self.us = 1_000_000

    def __call__(self):
        return self.us


def machine(engine, make_folder):
    class Verbs(RuleBasedStateMachine):
        claimed = Bundle("claimed")

        def __init__(self):
            super().__init__()
            self.clock = Clock()
            self.folder = make_folder()
            self.queue = engine(self.folder, now_us=self.clock)
            self.model = {}  # key: [crc, state, due_us]
            self.out = {}  # number: key, of what is claimed

        @initialize()
        def start(self):
            assert self.queue.claim(10).result(10) == []

        @rule(boot=st.integers(0, 2), sequence=st.integers(0, 5), crc=st.integers(0, 1))
        def put(self, boot, sequence, crc):
            entry = Entry("d", boot, sequence, crc, b"%d" % crc)
            (outcome,) = self.queue.put([entry]).result(10)
            key = boot, sequence
            if key not in self.model:
                assert outcome is Outcome.STORED
                self.model[key] = [crc, State.WAITING, self.clock.us]
            else:
                assert outcome is (Outcome.REPEATED if self.model[key][0] == crc else Outcome.CONFLICT)

        @rule(target=claimed, limit=st.integers(1, 4))
        def claim(self, limit):
            found = self.queue.claim(limit).result(10)
            out = set(self.out.values())
            due = sorted(
                due_us
                for key, (_, state, due_us) in self.model.items()
                if state is State.WAITING and due_us <= self.clock.us and key not in out
            )
            assert len(found) == min(limit, len(due))
            got = [(stored.boot, stored.sequence) for stored in found]
            assert len(set(got)) == len(got)
            assert [self.model[key][2] for key in got] == due[: len(found)]  # the longest due first
            for stored, key in zip(found, got, strict=True):
                assert self.model[key][1] is State.WAITING
                assert stored.body == b"%d" % self.model[key][0]
                self.out[stored.number] = key
            return multiple(*(stored.number for stored in found))

        @rule(number=consumes(claimed), verb=st.sampled_from(["done", "dead", "hold"]))
        def settle(self, number, verb):
            if number not in self.out:
                return  # a crash has come between
            key = self.out.pop(number)
            if verb == "done":
                self.queue.done(number).result(10)
            else:
                getattr(self.queue, verb)(number, "why").result(10)
            self.model[key][1] = {"done": State.DELIVERED, "dead": State.DEAD, "hold": State.HELD}[verb]

        @rule(number=consumes(claimed), after_s=st.integers(0, 100))
        def retry(self, number, after_s):
            if number not in self.out:
                return
            key = self.out.pop(number)
            self.queue.retry(number, after_s).result(10)
            self.model[key][2] = self.clock.us + after_s * 1_000_000

        @rule(state=st.sampled_from([State.DEAD, State.HELD]))
        def reopen(self, state):
            number = self.queue.reopen(state).result(10)
            fitting = [values for values in self.model.values() if values[1] is state]
            assert number == len(fitting)
            for values in fitting:
                values[1:] = [State.WAITING, 0]

        @rule(seconds=st.integers(0, 200))
        def time_passes(self, seconds):
            self.clock.us += seconds * 1_000_000

        @rule()
        def crash(self):
            """What is on disk is all there is; what was handed out is handed out again."""
            self.queue.close()
            self.queue = engine(self.folder, now_us=self.clock)
            self.out.clear()

        @invariant()
        def counts_agree(self):
            states = [state for _, state, _ in self.model.values()]
            assert self.queue.counts() == {state: states.count(state) for state in State}

        def teardown(self):
            self.queue.close()

    return Verbs


@pytest.mark.parametrize("engine", ENGINES)
def test_any_order_of_verbs_and_crashes_agrees_with_the_model(engine, tmp_path_factory):
    case = machine(engine, lambda: tmp_path_factory.mktemp("engine")).TestCase
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    case("runTest").runTest()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_purged_is_still_known_as_a_repeat(engine, tmp_path):
    clock = Clock()
    with engine(tmp_path, now_us=clock) as queue:
        queue.put([Entry("d", 1, 1, 5, b"x"), Entry("d", 1, 2, 5, b"y")]).result(10)
        one, two = queue.claim(2).result(10)
        queue.done(one.number).result(10)
        clock.us += 10_000_000
        assert queue.count_settled(State.DELIVERED, clock.us) == 1
        assert queue.purge(State.DELIVERED, clock.us).result(10) == 1
        assert [stored.number for stored in queue.stored()] == [two.number]
        assert queue.put([Entry("d", 1, 1, 5, b"x"), Entry("d", 1, 1, 6, b"z")]).result(10) == [
            Outcome.REPEATED,
            Outcome.CONFLICT,
        ]
        assert queue.counts()[State.DELIVERED] == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_purging_gives_room_back_to_the_disk(engine, tmp_path):
    with engine(tmp_path) as queue:
        queue.put([Entry("d", 1, i, 5, bytes(100_000)) for i in range(100)]).result(10)
        for stored in queue.claim(100).result(10):
            queue.done(stored.number).result(10)
        queue.purge(State.DELIVERED, 1 << 62).result(10)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_500_000


@pytest.mark.parametrize("engine", ENGINES)
def test_another_process_may_look_and_steer(engine, tmp_path):
    with engine(tmp_path) as queue, engine(tmp_path, beside=True) as beside:
        queue.put([Entry("d", 1, 1, 5, b"x")]).result(10)
        assert beside.counts()[State.WAITING] == 1
        beside.switch("paused", "yes").result(10)
        assert queue.switches() == {"paused": "yes"}
        beside.backup(tmp_path / "copy.sqlite")
    (tmp_path / "restored").mkdir()
    (tmp_path / "copy.sqlite").rename(tmp_path / "restored" / "windows.sqlite")
    with engine(tmp_path / "restored") as restored:
        assert restored.counts()[State.WAITING] == 1
