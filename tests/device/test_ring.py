"""The ring in RAM against a plain list."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from node.report import FIRST_REPORT
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


# --- resend -----------------------------------------------------------------------------------------------------------


def test_what_was_released_can_be_had_again_while_nobody_needs_its_room():
    ring = Ring(1000)
    for sequence in range(5):
        ring.put((7, sequence), bytes([sequence]) * 100)
        ring.release((7, sequence))
    assert ring.recall([(7, sequence) for sequence in range(6)]) == [(7, 0), (7, 1), (7, 2), (7, 5)]  # a quarter is 250
    assert list(ring.oldest(1000)) == [((7, sequence), bytes([sequence]) * 100) for sequence in (3, 4)]
    assert ring.used_bytes == 200
    assert ring.recall([(7, 3)]) == []
    assert len(ring) == 2
    ring.release((7, 4))
    ring.put((7, 6), bytes(850))
    assert ring.recall([(7, 4)]) == [(7, 4)]
    ring.release((7, 3))  # 150 bytes are left
    assert ring.recall([(7, 3)]) == []
    ring.release((7, 3))
    ring.put((7, 7), bytes(100))
    assert ring.recall([(7, 3)]) == [(7, 3)]


@given(st.lists(st.one_of(st.integers(1, 400), st.just(0)), max_size=40))
def test_what_waits_and_what_was_sent_never_take_more_than_the_ring_s_ram(steps):
    ring = Ring(1000)
    for sequence, length in enumerate(steps):
        if length and ring.has_room(length):
            ring.put((7, sequence), bytes(length))
        elif len(ring):
            ring.release(next(ring.oldest(1))[0])
        assert ring.used_bytes + ring._sent_bytes <= 1000
        assert ring._sent_bytes == sum(len(frame) for _, frame in ring._sent) <= 250


# --- reports in the ring ----------------------------------------------------------------------------------------------


def test_a_heap_that_is_full_costs_what_may_be_given_up_and_no_room_of_the_ring():
    ring = Ring(400)
    assert not ring.make_do()
    assert ring.has_room(400)  # with the heap's next free piece the board goes on
    ring.put((1, 0), b"a" * 40)
    assert not ring.make_do()
    ring.release((1, 0))
    assert ring.make_do()
    assert ring.recall([(1, 0)]) == [(1, 0)]
    lost = []
    ring = Ring(100, drops_oldest=True, lost=lambda key, reason: lost.append(key))
    ring.put((1, 0), b"a" * 40)
    ring.put((1, 1), b"a" * 40)
    assert ring.make_do()
    assert (lost, len(ring), ring.has_room(100)) == ([(1, 0)], 1, True)


def test_a_report_is_not_dropped_while_there_is_a_window():
    lost = []
    ring = Ring(300, drops_oldest=True, lost=lambda *what: lost.append(what))
    ring.put((7, FIRST_REPORT), bytes(100))
    assert ring.holds_report(7)
    assert not ring.holds_report(8)
    for sequence in range(4):
        ring.put((7, sequence), bytes(100))
    assert [key for key, _ in ring.oldest(1000)] == [(7, FIRST_REPORT), (7, 2), (7, 3)]
    assert [key for key, _ in lost] == [(7, 0), (7, 1)]
    ring.put((7, 4), bytes(300))
    assert [key for key, _ in ring.oldest(1000)] == [(7, 4)]
