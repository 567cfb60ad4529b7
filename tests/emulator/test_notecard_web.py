"""web.get, web.put, web.delete, and uploads in fragments."""

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judder.emulator.clock import VirtualClock
from judder.emulator.notecard import Notecard
from judder.emulator.notecard.faults import LostAnswer
from judder.emulator.notecard.link import WebResponse


class Card:
    """The card's core, without a bus around it."""

    def __init__(self):
        self.requests = []
        self.response = WebResponse(200, b'{"a": 1}')
        self.clock = VirtualClock()
        self.core = Notecard(self.clock, self.send, hub={"mode": "continuous"}, connect_delay_ns=0)

    def send(self, request):
        self.requests.append(request)
        return self.response

    def ask(self, request):
        self.core.feed(json.dumps(request).encode() + b"\n")
        self.clock.sleep(2 * 10**9)
        return json.loads(self.core.read(self.core.available()))


@pytest.fixture
def card():
    return Card()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
def test_each_method_goes_out_and_its_answer_comes_back(card, method):
    request = {"req": f"web.{method.lower()}", "route": "r", "name": "/x?y=1", "body": {"b": 2}}
    assert card.ask(request) == {"result": 200, "body": {"a": 1}}
    (sent,) = card.requests
    assert (sent.method, sent.route, sent.name) == (method, "r", "/x?y=1")
    assert sent.body == (b"" if method in ("GET", "DELETE") else b'{"b":2}')


def test_a_binary_answer_waits_in_the_store(card):
    card.response = WebResponse(200, bytes(range(256)))
    reply = card.ask({"req": "web.get", "route": "r", "binary": True})
    assert reply["result"] == 200
    assert reply["length"] == 256
    held = card.ask({"req": "card.binary"})
    assert (held["length"], held["cobs"]) == (256, reply["cobs"])
    assert held["status"] == hashlib.md5(bytes(range(256))).hexdigest()


def fragments(data, size, **also):
    for start in range(0, len(data), size):
        part = data[start : start + size]
        text = base64.b64encode(part).decode()
        status = hashlib.md5(part).hexdigest()
        yield {
            "req": "web.post",
            "route": "r",
            "payload": text,
            "status": status,
            "offset": start,
            "total": len(data),
        } | also


@given(st.binary(min_size=1, max_size=3000), st.integers(1, 1500))
def test_fragments_arrive_as_one_request(data, size):
    card = Card()
    *early, last = [card.ask(request) for request in fragments(data, size, label="l", content="x/y")]
    assert early == [{"result": 200}] * len(early)
    assert last == {"result": 200, "body": {"a": 1}}
    (sent,) = card.requests
    assert (sent.body, sent.label, sent.content) == (data, "l", "x/y")
    assert not card.core.fragments


def test_two_uploads_at_once_do_not_mix(card):
    one, two = list(fragments(b"1" * 90, 30, name="/1")), list(fragments(b"2" * 90, 30, name="/2"))
    for pair in zip(one, two, strict=True):
        for request in pair:
            card.ask(request)
    assert {(sent.name, sent.body) for sent in card.requests} == {("/1", b"1" * 90), ("/2", b"2" * 90)}


def test_a_fragment_out_of_order_is_refused_and_the_upload_can_go_on_or_start_anew(card):
    first, second, third = fragments(bytes(90), 30)
    card.ask(first)
    assert card.ask(third)["err"].startswith("offset: 60 is not where the 30 bytes so far end")
    card.ask(second)
    card.ask(first)
    assert card.ask(third)["err"].startswith("offset:")
    for request in (first, second, third):
        card.ask(request)
    assert [sent.body for sent in card.requests] == [bytes(90)]


def test_a_fragment_whose_md5_does_not_fit_is_refused(card):
    first, *_ = fragments(bytes(90), 30)
    assert card.ask(first | {"status": "0" * 32})["err"].startswith("status:")
    assert not card.core.fragments


@pytest.mark.parametrize("trouble", ["503", "lost answer", "brown-out"])
def test_an_upload_whose_fragment_fails_goes_on_with_that_fragment(card, trouble):
    """Fragments are Notehub's until it has delivered them; note-python's upload() repeats the one that failed."""
    first, second, third = fragments(bytes(range(90)), 30)
    card.ask(first)
    card.ask(second)
    if trouble == "503":
        card.response = WebResponse(503)
        assert card.ask(third)["result"] == 503
        card.response = WebResponse(200)
    elif trouble == "lost answer":
        card.core.faults.append(LostAnswer())
        assert "{timeout}" in card.ask(third | {"seconds": 1})["err"]
    else:
        card.core.restart()
        card.clock.sleep(10**9)
        assert card.ask(second) == {"result": 200}
    assert card.ask(third)["result"] == 200
    assert {sent.body for sent in card.requests} == {bytes(range(90))}
    assert not card.core.fragments


def test_only_so_many_uploads_are_unfinished_at_once(card):
    for number in range(40):
        first, *_ = fragments(bytes(90), 30, name=f"/{number}")
        card.ask(first)
    assert len(card.core.fragments) == 16
