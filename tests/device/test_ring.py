"""The ring in RAM against a plain list."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from node.ring import Ring


class RingMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.ring = Ring(1000)
        self.model = []
        self.sequence = 0

    @rule(length=st.integers(1, 400))
    def put(self, length):
        if self.ring.has_room(length):
            key = (7, self.sequence)
            self.ring.put(key, bytes(length))
            self.model.append((key, length))
            self.sequence += 1

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def release(self, data):
        key, length = data.draw(st.sampled_from(self.model))
        assert self.ring.release(key)
        assert not self.ring.release(key)
        self.model.remove((key, length))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def refuse(self, data):
        entry = data.draw(st.sampled_from(self.model))
        assert self.ring.refuse(entry[0]) >= 1
        self.model.remove(entry)
        self.model.append(entry)

    @rule(limit=st.integers(1, 1200))
    def oldest(self, limit):
        batch = [(key, len(frame)) for key, frame in self.ring.oldest(limit)]
        assert batch == self.model[: len(batch)]
        assert bool(batch) == bool(self.model)
        total = sum(length for _, length in batch)
        assert len(batch) <= 1 or total <= limit
        assert len(batch) == len(self.model) or total + self.model[len(batch)][1] > limit

    @invariant()
    def bytes_add_up(self):
        assert len(self.ring) == len(self.model)
        assert self.ring.used_bytes == sum(length for _, length in self.model) <= 1000


TestRingMachine = RingMachine.TestCase


@given(st.integers(1, 5))
def test_refusals_are_counted_per_frame(times):
    ring = Ring(1000)
    ring.put((1, 1), b"a")
    ring.put((1, 2), b"b")
    assert [ring.refuse((1, 1)) for _ in range(times)] == list(range(1, times + 1))
    assert ring.refuse((1, 2)) == 1
    assert ring.refuse((9, 9)) == 0
