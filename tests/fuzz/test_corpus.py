"""What fuzzing has found goes on holding, and some more: the corpus, and inputs made from it, without atheris."""

import importlib
import logging
import random
import time

import pytest
from tests.fuzz import TARGETS, kept

MADE_S = 2.0
LONGEST = 4096


@pytest.fixture(autouse=True)
def _log_of_the_others():
    """The target http silences the log for good; other tests in this process read it."""
    yield
    logging.getLogger("judder").setLevel(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_passes(name):
    target = importlib.import_module(f"tests.fuzz.{name}")
    for data in [*target.SEEDS, *(path.read_bytes() for path in kept(name))]:
        target.run(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_inputs_made_from_the_kept_ones_pass(name):
    """The same ones each time, as many as there is time for: a failure can be repeated, and says what it was."""
    target = importlib.import_module(f"tests.fuzz.{name}")
    inputs = [*target.SEEDS, *(path.read_bytes() for path in kept(name))]
    chance = random.Random(name)
    until_s = time.monotonic() + MADE_S
    while time.monotonic() < until_s:
        data = made(chance, inputs, target.WORDS)
        try:
            target.run(data)
        except Exception as error:
            error.add_note(f"target {name}, input {data!r}")
            raise


def made(chance, inputs, words):
    """One input with something of another, words and changed bytes in it."""
    data = bytearray(chance.choice(inputs))
    for _ in range(chance.randint(1, 5)):
        at, end = sorted(chance.randint(0, len(data)) for _ in "ab")
        other = chance.choice(inputs)
        data[at : min(end, at + chance.choice((0, 1, 8, LONGEST)))] = chance.choice(
            (b"", bytes([chance.randrange(256)]), chance.choice(words), other[chance.randint(0, len(other)) :][:300])
        )
    return bytes(data[:LONGEST])
