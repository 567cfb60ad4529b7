"""What the emulated Notecard keeps and does over time: link, notes, environment, updates, ATTN, queued requests."""

import base64
import hashlib
import inspect
import json
import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.emulator.notecard_host import MS, SECOND, Host

from judder.emulator.notecard import WebResponse, faults, script
from judder.emulator.notecard.twin import Event, Firmware, Inbound
from judder.emulator.notecard.vocabulary import VOCABULARY
from judder.emulator.trace import json_lines

MINUTE = 60 * SECOND
POST = {"req": "web.post", "route": "ingest", "name": "/x"}


@pytest.fixture
def host():
    """Connected from the start."""
    return Host()


def error(reply):
    return reply["err"].partition(":")[0], re.findall(r"\{[a-z0-9-]+\}", reply["err"])


# --- requests ---------------------------------------------------------------------------------------------------------


def note_python_functions():
    """Requests by name, with the members that note-python 2.5.1's generated functions send and their types."""
    from notecard import card, dfu, env, file, hub, note, web

    for module in (card, dfu, env, file, hub, note, web):
        for _, function in inspect.getmembers(module, inspect.isfunction):
            source = inspect.getsource(function)
            name = re.search(r'req = \{"req": "([a-z.]+)"', source)
            if name:
                members = re.findall(r'req\["([a-z]+)"\]', source)
                yield name[1], {member: documented_type(function, member) for member in members}


def documented_type(function, member):
    name = {"in": "in_", "out": "out_", "async": "async_"}.get(member, member)
    found = re.search(rf"^\s+{name} \((\w+)\):", function.__doc__, re.MULTILINE)
    return found[1] if found else ""


PREFIXES = {
    "card": "attn binary binary.get binary.put dfu restart restore status time version",
    "dfu": "get status",
    "env": "default get modified set",
    "file": "changes changes.pending clear delete stats",
    "hub": "get log set signal status sync sync.status",
    "note": "add changes delete get template update",
    "web": "delete get post put",
}
SCOPE = [f"{prefix}.{name}" for prefix, names in PREFIXES.items() for name in names.split()]


def test_the_scope_is_known():
    assert set(SCOPE) <= VOCABULARY.keys()
    assert "echo" in VOCABULARY


@pytest.mark.parametrize(("name", "members"), [pair for pair in note_python_functions() if pair[0] in SCOPE])
def test_every_member_that_blues_own_functions_send_is_known_with_its_type(name, members):
    sample = {"str": "x", "int": 60, "bool": True, "dict": {"a": 11}, "list": ["data.qo"], "": None}
    entry = VOCABULARY[name]
    assert entry.unknown(dict.fromkeys(members)) == set()
    for member, kind in members.items():
        if not isinstance(entry.members[member], tuple):
            fields = dict.fromkeys(entry.needs, "x") | {member: sample[kind]}
            if name == "card.binary.put" and member != "cobs":
                fields["cobs"] = 1
            entry.check(fields)


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"req": "hub.set", "mode": "sometimes"}, "mode"),
        ({"req": "hub.set", "on": True, "off": True}, "off"),
        ({"req": "hub.set", "duration": 5}, "duration"),
        ({"req": "card.dfu", "name": "z80"}, "name"),
        ({"req": "card.dfu", "start": True, "stop": True}, "stop"),
        ({"req": "card.attn", "mode": "arm,nonsense"}, "mode"),
        ({"req": "card.attn", "mode": "watchdog", "seconds": 59}, "seconds"),
        ({"req": "card.attn", "mode": "arm,files"}, "files"),
        ({"req": "env.get", "name": "a", "names": ["a"]}, "names"),
        ({"req": "env.default"}, "name"),
        ({"req": "note.add", "file": "x.qi", "body": {}}, "file"),
        ({"req": "note.add", "file": "x.db", "body": {}}, "note"),
        ({"req": "note.add", "note": "n", "body": {}}, "note"),
        ({"req": "note.add"}, "body"),
        ({"req": "note.add", "payload": "%"}, "payload"),
        ({"req": "note.add", "payload": base64.b64encode(bytes(257)).decode()}, "payload"),
        ({"req": "note.add", "binary": True}, "live"),
        ({"req": "note.add", "binary": True, "live": True, "payload": "YQ=="}, "payload"),
        ({"req": "note.get", "file": "x.qo"}, "file"),
        ({"req": "note.get", "file": "x.qi", "note": "n"}, "note"),
        ({"req": "note.get", "file": "x.db"}, "note"),
        ({"req": "note.update", "file": "x.db", "body": {}}, "note"),
        ({"req": "note.delete", "file": "x.qo", "note": "1"}, "file"),
        ({"req": "note.template", "file": "x.qo", "body": {"a": 7}}, "body"),
        ({"req": "file.delete"}, "files"),
        ({"req": "file.clear", "file": "x.db"}, "file"),
        ({"req": "dfu.status", "name": "board"}, "name"),
        ({"req": "web.post", "route": "r", "body": {}, "payload": "YQ=="}, "body"),
        ({"req": "web.post", "route": "r", "binary": True, "body": {"a": 1}}, "body"),
        ({"req": "web.post", "route": "r", "async": True, "file": "x.qo"}, "file"),
        ({"req": "web.post", "route": "r", "seconds": "9"}, "seconds"),
    ],
)
def test_what_is_wrong_is_named(host, request_, named):
    assert error(host.ask(request_))[0] == named


def test_a_request_that_was_refused_changed_nothing(host):
    before = json.dumps(host.ask(req="hub.get"))
    host.ask(req="hub.set", mode="minimum", sn=7)
    host.ask(req="note.add", file="x.qo", payload="%")
    assert json.dumps(host.ask(req="hub.get")) == before
    assert host.ask(req="file.stats") == {"total": 0, "changes": 0, "sync": False}


values = st.one_of(
    st.booleans(),
    st.integers(-2, 2**33),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "-", "x.qi", "x.qo", "x.db", "x.dbx", "continuous", "off", "dfu", "arm,files", "stm32"]),
    st.text(max_size=5),
    st.dictionaries(st.sampled_from("ab"), st.one_of(st.integers(11, 14), st.text(max_size=2)), max_size=2),
    st.lists(st.sampled_from(["x.qi", "x.db", "a"]), max_size=2),
)


def of_kind(kind):
    """Values that a member of this kind may have."""
    if isinstance(kind, tuple):
        return st.sampled_from(kind)
    texts = st.sampled_from(
        ["x.qi", "x.qo", "x.db", "x.dbx", "?", "1", "a", "YQ==", "arm,files", "watchdog", "-all", "9999"]
    )
    bodies = st.dictionaries(
        st.sampled_from("ab"), st.one_of(st.integers(11, 14), st.just("9"), st.booleans()), max_size=2
    )
    by_type = {
        str: texts,
        int: st.integers(-2, 9) | st.integers(-(2**70), 2**70),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        dict: bodies,
        list: st.lists(st.sampled_from(["x.qi", "x.db", "a", 1, None]), min_size=1, max_size=2),
    }
    return st.one_of([by_type[one] for one in get_args(kind) or (kind,)])


@st.composite
def requests(draw):
    name = draw(st.sampled_from(sorted(VOCABULARY.keys() - {"card.binary.put", "card.binary.get"})))
    known = VOCABULARY[name].members
    fitting = {member: st.one_of(of_kind(kind), of_kind(kind), values) for member, kind in known.items()}
    wanted = draw(st.lists(st.sampled_from(sorted(known) or ["text"]), max_size=5, unique=True))
    wanted = {*wanted, *VOCABULARY[name].needs}
    members = {member: draw(fitting.get(member, values)) for member in wanted}
    return {draw(st.sampled_from(["req", "req", "req", "cmd"])): name, **members}


@settings(max_examples=150, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=12))
def test_any_requests_get_one_reply_each_and_commands_none(sequence):
    host = Host(latency_ns=0)
    for request in sequence:
        host.write(host.line(request, crc="req" in request))
        if "req" in request:
            assert isinstance(json.loads(host.read_message()), dict)
        host.clock.sleep(SECOND)  # a brown-out, or a restart, takes its time
        assert host.read_message(0) == b""
    host.ask(req="hub.set", mode="continuous")
    assert host.ask(req="card.version")["version"] == host.card.version
    assert not host.card.bugs


# --- link -------------------------------------------------------------------------------------------------------------


def test_periodic_mode_syncs_by_its_periods_and_on_request():
    host = Host(online=False, connect_delay_ns=10 * SECOND)
    host.ask(req="hub.set", mode="periodic", outbound=30, inbound=60)
    assert host.ask(req="hub.sync.status")["status"] == "waiting for service {wait-service}"
    host.clock.sleep(11 * SECOND)
    status = host.ask(req="hub.sync.status")
    assert status["status"] == "completed {sync-end}"
    assert status["completed"] == 1
    assert "requested" not in status
    host.ask(req="note.add", body={"n": 1})
    host.clock.sleep(29 * MINUTE)
    assert not host.card.twin.events
    assert host.ask(req="hub.sync.status")["sync"] is True
    host.clock.sleep(2 * MINUTE)
    host.ask(req="hub.sync.status")
    assert list(host.card.twin.events) == [Event("data.qo", {"n": 1})]
    host.ask(req="hub.sync")
    assert host.ask(req="hub.sync.status")["status"] == "waiting for service {wait-service}"
    host.clock.sleep(12 * SECOND)
    status = host.ask(req="hub.sync.status")
    assert status["status"] == "completed {sync-end}"
    assert status["completed"] < 3 < 12 <= status["requested"]
    assert "connected" not in host.ask(req="hub.status")


def test_minimum_mode_syncs_only_on_request():
    host = Host(online=False)
    host.ask(req="hub.set", mode="minimum")
    host.clock.sleep(10 * MINUTE)
    assert error(host.ask(req="card.time"))[1] == ["{no-time}"]
    host.ask(req="hub.sync")
    assert host.ask(req="card.time")["time"] > 0


@pytest.mark.parametrize("mode", ["off", "dfu"])
def test_without_a_link_there_is_no_sync(host, mode):
    host.ask(req="hub.set", mode=mode)
    assert error(host.ask(req="hub.sync"))[1] == ["{hub-mode}"]


def test_a_session_for_a_while_makes_web_requests_possible_in_periodic_mode():
    host = Host(online=False, connect_delay_ns=5 * SECOND)
    host.ask(req="hub.set", mode="periodic")
    host.clock.sleep(MINUTE)
    assert "err" in host.ask(POST)
    host.ask(req="hub.set", on=True, seconds=60)
    assert "err" in host.ask(POST)
    host.clock.sleep(6 * SECOND)
    assert host.ask(POST)["result"] == 200
    host.clock.sleep(MINUTE)
    assert "err" in host.ask(POST)
    host.ask(req="hub.set", on=True)
    host.clock.sleep(6 * SECOND)
    assert host.ask(POST)["result"] == 200
    host.ask(req="hub.set", off=True)
    assert "err" in host.ask(POST)


def test_after_an_outage_the_new_session_syncs(host):
    start = host.clock.now_ns() + SECOND
    host.card.link.outages.append((start, start + MINUTE))
    host.clock.sleep(2 * SECOND)
    host.ask(req="note.add", body={"n": 1}, sync=True)
    assert not host.card.twin.events
    host.clock.sleep(MINUTE)
    host.ask(req="card.version")
    assert len(host.card.twin.events) == 1


def test_a_setting_is_taken_back_by_a_dash_or_minus_one(host):
    host.ask(req="hub.set", sn="pump 3", outbound=60)
    assert {"sn": "pump 3", "outbound": 60}.items() <= host.ask(req="hub.get").items()
    host.ask(req="hub.set", sn="-", outbound=-1)
    assert not {"sn", "outbound"} & host.ask(req="hub.get").keys()


# --- notes ------------------------------------------------------------------------------------------------------------


def test_notes_go_out_with_the_next_sync(host):
    assert host.ask(req="note.add", body={"n": 1}) == {"total": 1}
    assert host.ask(req="note.add", payload="YWJj") == {"total": 2}
    assert host.ask(req="file.stats") == {"total": 2, "changes": 2, "sync": True}
    assert host.ask(req="file.changes.pending")["info"] == {"data.qo": {"total": 2, "changes": 2}}
    host.ask(req="hub.sync")
    assert host.ask(req="file.stats") == {"total": 0, "changes": 0, "sync": False}
    assert host.ask(req="file.changes.pending") == {}
    assert list(host.card.twin.events) == [Event("data.qo", {"n": 1}), Event("data.qo", None, b"abc")]


def test_a_note_with_sync_goes_at_once_and_with_max_when_there_are_so_many(host):
    host.ask(req="note.add", body={"n": 1}, sync=True)
    host.ask(req="card.version")
    assert len(host.card.twin.events) == 1
    for n in range(3):
        host.ask(req="card.version")
        assert len(host.card.twin.events) == 1
        host.ask(req="note.add", file="b.qo", body={"n": n}, sync=True, max=3)
    host.ask(req="card.version")
    assert len(host.card.twin.events) == 4


def test_a_full_queue_refuses(host):
    host.ask(req="note.add", body={}, max=1)
    assert error(host.ask(req="note.add", body={}, max=1)) == ("max", ["{too-many-notes}"])


def test_a_live_note_carries_the_binary_store(host):
    host.put(bytes(1000))
    host.ask(req="note.add", binary=True, live=True, sync=True)
    host.ask(req="card.version")
    assert host.card.twin.events[-1].payload == bytes(1000)


def test_inbound_notes_wait_in_order_until_they_are_deleted(host):
    host.ask(req="hub.set", sync=True)
    for n in range(3):
        host.card.twin.send_note(Inbound("capture.qi", {"n": n}))
    changes = host.ask(req="file.changes", tracker="t", files=["capture.qi"])
    assert changes == {"changes": 3, "total": 3, "info": {"capture.qi": {"total": 3, "changes": 3}}}
    first = host.ask(req="note.get", file="capture.qi")
    assert first["body"] == {"n": 0}
    assert first["time"] == host.ask(req="card.time")["time"]
    for n in range(3):
        assert host.ask(req="note.get", file="capture.qi", delete=True)["body"] == {"n": n}
    assert error(host.ask(req="note.get", file="capture.qi", delete=True))[1] == ["{note-noexist}"]


def test_without_sync_an_inbound_note_waits_for_one(host):
    host.ask(req="card.version")
    host.card.twin.send_note(Inbound("capture.qi", {"n": 1}))
    host.clock.sleep(MINUTE)
    assert "err" in host.ask(req="note.get", file="capture.qi")
    host.ask(req="hub.sync")
    assert host.ask(req="note.get", file="capture.qi")["body"] == {"n": 1}


def test_databases(host):
    assert host.ask(req="note.add", file="s.db", note="a", body={"v": 1}) == {"total": 1}
    assert error(host.ask(req="note.add", file="s.db", note="a", body={}))[1] == ["{note-exists}"]
    made = host.ask(req="note.add", file="s.db", note="?", body={"v": 2})
    assert host.ask(req="note.get", file="s.db", note=made["note"])["body"] == {"v": 2}
    host.ask(req="note.update", file="s.db", note="a", body={"v": 3})
    host.ask(req="hub.sync")
    host.ask(req="note.delete", file="s.db", note="a")
    assert error(host.ask(req="note.get", file="s.db", note="a"))[1] == ["{note-noexist}"]
    assert error(host.ask(req="note.get", file="none.db", note="a"))[1] == ["{notefile-noexist}"]
    host.ask(req="hub.sync")
    host.ask(req="card.version")
    assert list(host.card.twin.events) == [
        Event("s.db", {"v": 2}, note=made["note"]),
        Event("s.db", {"v": 3}, note="a"),
        Event("s.db", note="a", deleted=True),
    ] or list(host.card.twin.events) == [
        Event("s.db", {"v": 3}, note="a"),
        Event("s.db", {"v": 2}, note=made["note"]),
        Event("s.db", note="a", deleted=True),
    ]


def test_a_local_database_never_leaves_the_card(host):
    host.ask(req="note.add", file="s.dbx", note="a", body={"v": 1})
    host.ask(req="hub.sync")
    host.ask(req="card.version")
    assert not host.card.twin.events
    assert host.ask(req="note.get", file="s.dbx", note="a")["body"] == {"v": 1}


def test_a_tracker_sees_each_change_once(host):
    for n in range(4):
        host.ask(req="note.add", file="s.dbx", note=str(n), body={"n": n})
    ask = {"req": "note.changes", "file": "s.dbx", "tracker": "t", "max": 3}
    seen = host.ask(ask)
    assert (seen["changes"], seen["total"], sorted(seen["notes"])) == (4, 4, ["0", "1", "2"])
    assert sorted(host.ask(ask)["notes"]) == ["3"]
    assert "notes" not in host.ask(ask)
    host.ask(req="note.update", file="s.dbx", note="1", body={"n": 9})
    assert host.ask(ask)["notes"]["1"]["body"] == {"n": 9}
    assert len(host.ask(ask | {"start": True, "max": 9})["notes"]) == 4


def test_a_template_is_kept_to(host):
    body = {"rms": 14.1, "n": 12, "ok": True, "name": "10"}
    assert host.ask(req="note.template", file="t.qo", body=body)["bytes"] == 5 + 4 + 2 + 1 + 10
    assert host.ask(req="note.template", file="t.qo", verify=True)["body"] == body
    assert host.ask(req="note.add", file="t.qo", body={"rms": 1, "ok": False}) == {"total": 1, "template": True}
    for wrong in ({"else": 1}, {"rms": "1"}, {"ok": 1}, {"n": True}):
        assert error(host.ask(req="note.add", file="t.qo", body=wrong)) == ("body", ["{template-incompatible}"])


class AnyNotes(RuleBasedStateMachine):
    """A queue out, a queue in, and what Notehub has: nothing is lost, doubled or out of order."""

    def __init__(self):
        super().__init__()
        self.host = Host()
        self.host.ask(req="hub.set", sync=True)
        self.added, self.sent, self.got = [], [], []

    @rule(sync=st.booleans())
    def add(self, sync):
        self.added.append(len(self.added))
        self.host.ask(req="note.add", body={"n": self.added[-1]}, sync=sync)

    @rule()
    def send(self):
        self.sent.append(len(self.sent))
        self.host.card.twin.send_note(Inbound("x.qi", {"n": self.sent[-1]}))

    @rule()
    def get(self):
        reply = self.host.ask(req="note.get", file="x.qi", delete=True)
        if "body" in reply:
            self.got.append(reply["body"]["n"])

    @rule(seconds=st.integers(1, 100))
    def outage(self, seconds):
        now = self.host.clock.now_ns()
        self.host.card.link.outages.append((now, now + seconds * SECOND))

    @rule(brown_out=st.booleans())
    def restart(self, brown_out):
        self.host.card.brown_out() if brown_out else self.host.card.restart()
        self.host.clock.sleep(2 * SECOND)

    @rule(seconds=st.integers(1, 200))
    def wait(self, seconds):
        self.host.clock.sleep(seconds * SECOND)

    @invariant()
    def all_are_somewhere(self):
        out = [event.body["n"] for event in self.host.card.twin.events]
        waiting = self.host.card.notefiles.files.get("data.qo")
        assert out + [note.body["n"] for note in (waiting.notes.values() if waiting else ())] == self.added
        arrived = self.host.card.notefiles.files.get("x.qi")
        held = [note.body["n"] for note in (arrived.notes.values() if arrived else ())]
        assert self.got + held + [note.body["n"] for note in self.host.card.twin.inbound] == self.sent

    def teardown(self):
        self.host.clock.sleep(1000 * SECOND)
        self.host.ask(req="hub.sync")
        self.host.ask(req="card.version")
        assert [event.body["n"] for event in self.host.card.twin.events] == self.added


AnyNotes.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestAnyNotes = AnyNotes.TestCase


# --- environment ------------------------------------------------------------------------------------------------------


def test_environment_by_precedence_and_without_regard_to_case():
    host = Host(environment={"label": "idle", "odr": "400"})
    assert host.ask(req="env.get", name="LABEL") == {"text": "idle"}
    assert host.ask(req="env.get", name="none") == {}
    assert host.ask(req="env.get") == {"body": {"label": "idle", "odr": "400"}}
    host.ask(req="env.default", name="Label", text="default")
    host.ask(req="env.default", name="range", text="2")
    assert host.ask(req="env.get", names=["Label", "range", "none"])["body"] == {"Label": "idle", "range": "2"}
    host.ask(req="env.set", name="label", text="mine")
    assert host.ask(req="env.get", name="label")["text"] == "mine"
    host.ask(req="env.set", name="label")
    host.ask(req="env.default", name="range", text="")
    assert host.ask(req="env.get")["body"] == {"Label": "idle", "odr": "400"}


def test_a_change_at_notehub_arrives_with_a_sync_and_has_a_time(host):
    assert host.ask(req="env.modified") == {}
    host.card.twin.set_environment({"odr": "400", "label": "x"})
    assert host.ask(req="env.modified") == {}
    host.ask(req="hub.sync")
    first = host.ask(req="env.modified")["time"]
    assert host.ask(req="env.get", name="odr") == {"text": "400", "time": first}
    assert error(host.ask(req="env.get", time=first))[1] == ["{env-not-modified}"]
    host.ask(req="hub.sync")
    assert host.ask(req="env.modified")["time"] == first
    host.card.twin.set_environment({"odr": "1344", "label": None})
    host.ask(req="hub.sync")
    assert host.ask(req="env.modified")["time"] > first
    assert host.ask(req="env.get", time=first)["body"] == {"odr": "1344"}


# --- updates ----------------------------------------------------------------------------------------------------------

IMAGE = bytes(range(256)) * 100


def offered(host, name="-"):
    host.ask(req="card.dfu", name=name)
    host.card.twin.offer(Firmware("app.bin", IMAGE, "2.0.0"))
    host.ask(req="hub.sync")
    return host.ask(req="dfu.status", on=True)


def test_firmware_downloads_over_time_and_is_fetched_in_pieces(host):
    assert host.ask(req="dfu.status") == {"mode": "idle", "status": "no download in progress", "on": True}
    status = offered(host)
    assert (status["mode"], status["pending"]) == ("downloading", True)
    assert error(host.ask(req="dfu.get", length=0))[1] == ["{dfu-not-ready}"]
    host.clock.sleep(2 * SECOND)
    status = host.ask(req="dfu.status")
    assert (status["mode"], status["body"]["length"]) == ("ready", len(IMAGE))
    assert status["body"]["md5"] == hashlib.md5(IMAGE).hexdigest()
    assert error(host.ask(req="dfu.get", length=0))[1] == ["{dfu-not-ready}"]  # not in mode dfu
    host.ask(req="hub.set", mode="dfu")
    assert host.ask(req="dfu.get", length=0)["payload"] == ""
    image = b""
    while len(image) < len(IMAGE):
        reply = host.ask(req="dfu.get", offset=len(image), length=min(4096, len(IMAGE) - len(image)))
        image += base64.b64decode(reply["payload"])
    assert image == IMAGE
    reply = host.ask(req="dfu.get", offset=256, length=8192, binary=True)
    assert reply["status"] == hashlib.md5(IMAGE[256:8448]).hexdigest()
    assert host.card.store.data == IMAGE[256:8448]
    for wrong in ({"offset": len(IMAGE), "length": 1}, {"offset": -1, "length": 1}, {"length": 9000}):
        assert "err" in host.ask(req="dfu.get", **wrong)
    host.ask(req="hub.set", mode="dfu-completed")
    assert host.ask(req="hub.get")["mode"] == "continuous"
    assert host.ask(req="dfu.status", stop=True, err="bad hash")["mode"] == "error"
    host.ask(req="hub.sync")
    assert host.ask(req="dfu.status")["status"] == "bad hash"  # the same firmware is not offered again
    assert host.card.twin.host_status == "bad hash"


def test_a_download_waits_for_the_network_and_for_permission(host):
    host.ask(req="dfu.status", off=True)
    assert offered(host)["mode"] == "downloading"  # `on` in between
    host.ask(req="dfu.status", stop=True)
    host.card.twin.offer(Firmware("b.bin", IMAGE))
    host.ask(req="dfu.status", off=True)
    host.ask(req="hub.sync")
    assert host.ask(req="dfu.status")["mode"] == "completed"
    host.ask(req="dfu.status", on=True)
    now = host.clock.now_ns()
    host.card.link.outages.append((now, now + MINUTE))
    host.clock.sleep(30 * SECOND)
    assert host.ask(req="dfu.status")["mode"] == "downloading"
    host.clock.sleep(31 * SECOND)
    assert host.ask(req="dfu.status")["mode"] == "ready"


def test_outboard_the_card_flashes_the_host_when_it_may(host):
    offered(host, "stm32")
    host.ask(req="card.dfu", off=True)
    host.clock.sleep(10 * MINUTE)
    assert host.ask(req="dfu.status")["mode"] == "ready"
    host.ask(req="card.dfu", off=True, seconds=120)
    host.clock.sleep(MINUTE)
    host.ask(req="card.version")
    assert not host.card.outboard.flashed
    host.clock.sleep(2 * MINUTE)
    assert host.ask(req="dfu.status")["mode"] == "completed"
    assert [firmware.data for firmware in host.card.outboard.flashed] == [IMAGE]


def test_the_host_s_version_reaches_notehub(host):
    host.ask(req="dfu.status", version={"version": "1.2.3"})
    host.ask(req="card.version")
    assert host.card.twin.host_version == {"version": "1.2.3"}


# --- ATTN -------------------------------------------------------------------------------------------------------------


def test_attn_fires_for_what_it_is_armed_for(host):
    host.ask(req="hub.set", sync=True)
    assert host.ask(req="card.attn") == {"set": True}
    assert host.ask(req="card.attn", mode="arm,files,env", files=["capture.qi"]) == {}
    host.card.twin.send_note(Inbound("other.qi", {}))
    assert host.ask(req="card.attn") == {}
    host.card.twin.send_note(Inbound("capture.qi", {}))
    assert host.ask(req="card.attn") == {"set": True, "files": ["capture.qi"]}
    host.ask(req="card.attn", mode="arm,-files")
    host.card.twin.send_note(Inbound("capture.qi", {}))
    assert host.ask(req="card.attn") == {}
    host.card.twin.set_environment({"a": "1"})
    assert host.ask(req="card.attn") == {"set": True, "files": ["env"]}
    assert host.ask(req="card.attn", mode="arm,signal", seconds=60) == {}
    assert host.card.signal({"now": True})
    assert host.ask(req="card.attn")["files"] == ["signal"]
    assert host.ask(req="hub.signal") == {"body": {"now": True}, "connected": True, "signals": 0}
    host.ask(req="card.attn", mode="arm", seconds=60)
    host.clock.sleep(61 * SECOND)
    assert host.ask(req="card.attn") == {"set": True, "files": ["timeout"]}
    host.ask(req="card.attn", mode="arm")
    assert host.ask(req="card.attn", mode="disarm,-all") == {"set": True}


def test_a_signal_is_heard_only_in_a_session():
    host = Host(online=False)
    assert not host.card.signal({})
    assert host.ask(req="hub.signal") == {"signals": 0}


def test_a_host_that_goes_silent_is_pulsed_each_time(host):
    host.ask(req="card.attn", mode="watchdog", seconds=60)
    for _ in range(10):
        host.clock.sleep(50 * SECOND)
        host.ask(req="card.version")
    assert not host.card.attn.pulses
    heard = host.clock.now_ns()
    host.clock.sleep(190 * SECOND)
    host.card.agenda.advance()
    pulses = host.card.attn.pulses
    pulses = list(pulses)
    assert len(pulses) == 3
    assert pulses[0] - heard == pytest.approx(60 * SECOND, abs=SECOND)
    assert pulses[2] - pulses[1] == 60 * SECOND
    assert host.ask(req="card.attn")["files"] == ["watchdog"]
    host.ask(req="card.attn", off=True)
    host.clock.sleep(MINUTE * 5)
    host.card.agenda.advance()
    assert len(host.card.attn.pulses) == 3


def test_a_host_can_leave_itself_a_message(host):
    host.ask(req="card.attn", mode="sleep", seconds=3600, payload="YWJj")
    assert not host.card.attn.high
    host.clock.sleep(3601 * SECOND)
    assert host.ask(req="card.attn", start=True)["payload"] == "YWJj"
    assert host.card.attn.high


# --- queued requests, restart, restore --------------------------------------------------------------------------------


def test_an_asynchronous_request_is_answered_at_once_and_sent(host):
    host.server.response = WebResponse(201, b"made")
    assert host.ask(POST | {"async": True, "body": {"n": 1}, "file": "web.dbx", "note": "r"}) == {}
    host.ask(req="card.version")
    assert [request.body for request in host.server.requests] == [b'{"n":1}']
    assert host.ask(req="note.get", file="web.dbx", note="r")["body"] == {"result": 201, "payload": "made"}


def test_offline_a_request_with_a_file_is_sent_later(host):
    now = host.clock.now_ns()
    host.card.link.outages.append((now, now + MINUTE))
    host.clock.sleep(SECOND)
    assert "err" in host.ask(POST)
    for n in range(3):
        assert host.ask(POST | {"file": "web.dbx", "note": str(n), "body": {"n": n}}) == {}
    assert not host.server.requests
    host.clock.sleep(MINUTE)
    host.ask(req="card.version")
    assert [request.body for request in host.server.requests] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']


def test_restore_empties_the_card_and_with_delete_its_settings(host):
    host.ask(req="hub.set", product="com.example:x", sn="s")
    host.ask(req="note.add", body={})
    host.ask(req="card.restore")
    host.clock.sleep(2 * SECOND)
    assert host.ask(req="file.stats")["total"] == 0
    assert host.ask(req="hub.get")["product"] == "com.example:x"
    host.ask(req="card.restore", delete=True)
    host.clock.sleep(2 * SECOND)
    assert "product" not in host.ask(req="hub.get")
    host.ask(req="hub.set", product="com.example:x")
    assert host.card.link.mode == "periodic"


def test_notes_and_settings_outlive_a_brown_out(host):
    host.ask(req="note.add", body={"n": 1})
    host.ask(req="hub.set", sn="s")
    host.card.link.connect_delay_ns = 30 * SECOND
    host.card.brown_out()
    host.clock.sleep(2 * SECOND)
    assert host.ask(req="file.stats")["total"] == 1
    assert host.ask(req="hub.get")["sn"] == "s"


# --- profiles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "has"), [("notecard-4.4.1.4015903", False), ("notecard-8.1.3.17074", True)])
def test_old_firmware_knows_no_checksums(version, has):
    host = Host(version=version)
    host.write(host.line({"req": "card.version"}))
    assert (b'"crc"' in host.read_message()) == has


@pytest.mark.parametrize(("digits", "echoed"), [(4, "2345"), (8, "12345"), (2, "45")])
def test_the_width_of_the_echoed_sequence_number_is_a_switch(digits, echoed):
    host = Host(echo_digits=digits)
    host.write(host.line({"req": "card.version"}, sequence=0x12345))
    assert f'"crc":"{echoed}:'.encode() in host.read_message()


def test_input_without_pauses_overflows_only_in_strict_mode():
    for strict in (False, True):
        host = Host(strict_input=strict)
        line = host.line({"req": "echo", "text": "x" * 3000}, crc=False)
        host.card.feed(line)
        host.clock.sleep(2 * SECOND)
        host.card.feed(b"\n")
        host.clock.sleep(SECOND)
        reply = b""
        while message := host.read_message(0):
            reply += message
        assert (b"x" * 3000 in reply) != strict
        assert bool(host.card.bytes_overflowed) == strict
    for start in range(0, len(line), 250):
        host.card.feed(line[start : start + 250])
        host.clock.sleep(250 * MS)
    assert b"x" * 3000 in host.read_message()


# --- script and trace -------------------------------------------------------------------------------------------------


def test_a_script_happens_over_time(tmp_path):
    (tmp_path / "app.bin").write_bytes(IMAGE)
    steps = [
        {"at_s": 20, "offline_s": 30},
        {"at_s": 5.5, "environment": {"a": "1", "b": None}},
        {"at_s": 6, "note": {"file": "x.qi", "payload": "YWJj"}},
        {"at_s": 7, "signal": {"s": 1}},
        {"at_s": 60, "firmware": str(tmp_path / "app.bin"), "version": "2"},
        {"at_s": 300, "brown_out": True},
    ]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, steps)) + "\n\n")
    host = Host()
    host.ask(req="hub.set", sync=True)
    script.run(script.load(tmp_path / "s.jsonl"), host.card)
    assert "err" in host.ask(req="note.get", file="x.qi")
    host.clock.sleep(10 * SECOND)
    assert host.ask(req="note.get", file="x.qi")["payload"] == "YWJj"
    assert host.ask(req="env.get")["body"] == {"a": "1"}
    assert host.ask(req="hub.signal")["body"] == {"s": 1}
    assert host.ask(req="hub.status")["connected"]
    host.clock.sleep(20 * SECOND)
    assert "connected" not in host.ask(req="hub.status")
    host.clock.sleep(45 * SECOND)
    assert host.ask(req="dfu.status")["mode"] == "ready"
    host.clock.sleep(300 * SECOND)
    host.ask(req="card.version")
    assert host.card.restarts == 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "JSON"),
        ('{"at_s": 1}', "exactly one of offline_s, environment"),
        ('{"at_s": -1, "offline_s": 3}', "at_s"),
        ('{"offline_s": 3}', "at_s"),
        ('{"at_s": 1, "offline_s": 3, "brown_out": true}', "exactly one"),
        ('{"at_s": 1, "ofline_s": 3}', "ofline_s"),
        ('{"at_s": 1, "note": {"file": "x.qo"}}', "must end in one of .qi"),
        ('{"at_s": 1, "note": {"file": "x.qi", "payload": "%"}}', "note.payload"),
        ('{"at_s": 1, "firmware": "none.bin"}', "firmware"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, why):
    path = tmp_path / "s.jsonl"
    path.write_text('{"at_s": 0, "offline_s": 1}\n' + line)
    with pytest.raises(script.ScriptError, match=why) as caught:
        script.load(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert "\n" not in str(caught.value)


def test_the_same_talk_leaves_the_same_trace():
    traces = []
    for _ in range(2):
        lines = []
        host = Host()
        host.card.trace = host.bus.trace = json_lines(host.clock, lines.append)
        host.ask(req="card.version")
        host.put(b"abc")
        host.ask(POST | {"binary": True})
        host.ask(req="note.add", body={"n": 1}, sync=True)
        host.card.brown_out()
        host.clock.sleep(2 * SECOND)
        host.ask(req="card.version")
        traces.append(lines)
    assert traces[0] == traces[1]
    records = [json.loads(line) for line in traces[0]]
    assert {record["what"] for record in records} >= {"request", "reply", "bus", "stream", "post", "answer", "event"}
    (post,) = [record for record in records if record["what"] == "post"]
    assert (post["name"], post["bytes"], post["md5"]) == ("/x", 3, hashlib.md5(b"abc").hexdigest())
    assert all(list(record)[:2] == ["t_s", "what"] for record in records)


# --- what a second reader broke ---------------------------------------------------------------------------------------


def test_a_request_that_the_emulator_fails_at_is_answered(host):
    def fail(request):
        raise RuntimeError("boom")

    host.card.send = fail
    assert "boom" in host.ask(POST)["err"]
    assert len(host.card.bugs) == 1
    assert "version" in host.ask(req="card.version")


@pytest.mark.parametrize(
    "request_",
    [
        {"req": "note.changes", "file": "x.db", "max": -1},
        {"req": "note.changes", "file": "x.db", "max": 2**64},
        {"req": "note.template", "file": "x.qo", "body": json.loads('{"a":' * 700 + "1" + "}" * 700)},
        {"req": "note.template", "file": "x.qo", "body": {"a": "9" * 5000}},
        {"req": "card.attn", "mode": "arm,files", "files": [1, {}]},
        {"req": "env.get", "names": [{}, 3]},
        {"req": "file.changes", "files": [{}]},
        {"req": "hub.set", "inbound": 2**50, "mode": "periodic"},
        {"req": "web.post", "route": "r", "seconds": 2**60},
        {"req": "note.add", "body": {"a": 1e308 * 10}},
    ],
    ids=lambda request: request["req"],
)
def test_odd_values_are_answered(host, request_):
    host.ask(req="note.add", file="x.db", note="1", body={})
    text = json.dumps(request_)
    host.write(text.encode() + b"\n")
    assert isinstance(json.loads(host.read_message()), dict)
    assert not host.card.bugs
    assert "version" in host.ask(req="card.version")


def test_what_is_due_happens_as_of_its_time_however_late_somebody_looks():
    host = Host(online=False, connect_delay_ns=SECOND)
    host.ask(req="hub.set", mode="periodic", on=True, seconds=300)
    host.ask(POST | {"async": True})
    host.clock.sleep(400 * SECOND)
    host.ask(req="card.version")
    assert len(host.server.requests) == 1


@pytest.mark.parametrize("mode", ["periodic", "minimum"])
def test_firmware_downloads_in_every_mode_with_a_network(mode):
    host = Host(online=False, connect_delay_ns=SECOND)
    host.ask(req="hub.set", mode=mode)
    host.card.twin.offer(Firmware("app.bin", IMAGE))
    host.ask(req="hub.sync")
    host.clock.sleep(MINUTE)
    assert host.ask(req="dfu.status")["mode"] == "ready"


def test_a_download_that_a_mode_without_network_cut_short_starts_anew(host):
    assert offered(host)["mode"] == "downloading"
    host.ask(req="hub.set", mode="off")
    host.clock.sleep(MINUTE)
    assert host.ask(req="dfu.status")["mode"] == "idle"
    host.ask(req="hub.set", mode="continuous")
    host.clock.sleep(MINUTE)
    assert host.ask(req="dfu.status")["mode"] == "ready"


def test_dfu_mode_twice_still_ends_in_the_mode_before(host):
    for mode in ("dfu", "dfu", "dfu-completed"):
        host.ask(req="hub.set", mode=mode)
    assert host.ask(req="hub.get")["mode"] == "continuous"


def test_a_fresh_card_syncs_once_it_has_a_product():
    host = Host(online=False, connect_delay_ns=SECOND)
    host.clock.sleep(MINUTE)
    assert error(host.ask(req="card.time"))[1] == ["{no-time}"]
    host.ask(req="hub.set", product="com.example:pump")
    host.clock.sleep(2 * SECOND)
    assert host.ask(req="card.time")["time"] > 0


def test_watchdog_and_arm_have_timers_of_their_own(host):
    host.ask(req="card.attn", mode="watchdog", seconds=60)
    host.ask(req="card.attn", mode="arm", seconds=30)
    host.clock.sleep(31 * SECOND)
    assert host.ask(req="card.attn")["files"] == ["timeout"]
    assert not host.card.attn.pulses
    host.ask(req="card.attn", mode="disarm,-all")
    host.clock.sleep(10 * MINUTE)
    host.card.agenda.advance()
    assert not host.card.attn.pulses


def test_a_repetition_is_one_only_for_a_while_and_for_the_same_program(host):
    line = host.line({"req": "echo"})
    for pause_s, executed in ((0, 1), (100, 1), (200, 2)):
        host.clock.sleep(pause_s * SECOND)
        host.write(line)
        host.read_message()
        assert host.card.executed["echo"] == executed
    host.card.new_host()
    host.write(line)
    assert host.card.executed["echo"] == 3


def test_a_host_that_never_reads_does_not_fill_the_memory(host):
    for _ in range(3000):
        host.card.feed(b'{"req":"echo"}\n')
    assert len(host.card._messages) == 1000
    host.clock.sleep(MINUTE)
    while host.read_message(0):
        pass
    host.card.link.set_mode("off")
    for _ in range(100):
        host.ask(POST | {"async": True})
    assert "100 web requests are waiting" in host.ask(POST | {"async": True})["err"]


@pytest.mark.parametrize(
    "kinds",
    [
        ["lost-reply", "wrong-crc"],
        ["wrong-crc", "lost-reply"],
        ["lost-reply", "not-json"],
        ["short", "altered"],
        ["altered"],
    ],
    ids="+".join,
)
def test_faults_go_together(kinds):
    host = Host()
    host.card.faults = [faults.named(f"{kind}:1") for kind in kinds]
    for data in (b"A", b"", b"\0\0", b"hello" * 100):
        host.write(b'{"cmd":"card.binary.put","cobs":%d}\n' % max(1, len(data)))
        host.write(data + b"\n")
        host.write(host.line(POST))
        host.read_message(SECOND)
    host.card.faults.clear()
    host.drain()
    assert "version" in host.ask(req="card.version")
    assert not host.card.bugs


def test_a_fault_strikes_each_n_th_time():
    fault = faults.named("lost-reply:3")
    assert [fault.strikes() for _ in range(7)] == [False, False, True, False, False, True, False]


def test_the_trace_has_every_line_and_is_json(host):
    lines = []
    host.card.trace = json_lines(host.clock, lines.append)
    host.card.faults.append(faults.Heartbeat())
    host.ask(POST)
    host.read_message()
    host.put(b"abc")
    host.ask(req="card.binary.get")
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert any("heartbeat" in record.get("line", "") for record in records)
    assert any(record["what"] == "stream out" and record["bytes"] == 4 for record in records)


def test_what_is_heard_while_a_queued_request_is_sent_comes_in_order(host):
    """On a shared bus others go on while the card waits for a server."""

    def send(request):
        host.card.feed(b'{"req":"echo","id":1}\n')
        host.card.agenda.advance()
        assert host.card.available() == 0
        return WebResponse(200)

    host.card.send = send
    assert host.ask(POST | {"async": True}) == {}
    host.card.agenda.advance()
    assert not host.card.queued
    host.write(b'{"req":"echo","id":2}\n')
    assert [json.loads(host.read_message())["id"] for _ in range(2)] == [1, 2]
