"""The ATTN pin: tells the host that something happened, puts it to sleep, or pulses when it goes silent.

Documents: notecard-schema:card.attn.req and .rsp. Assumed: a watchdog that has pulsed starts over, and a restart of
the card disarms it. `seconds` count exactly, without the 15 s grid that a real card in continuous mode has.
"""

from collections import deque

from judder.emulator.notecard.line import CardError, Fields
from judder.emulator.notecard.link import NEVER

WATCHED = ("auxgpio", "connected", "env", "files", "location", "motion", "motionchange", "signal", "usb", "wireless")
ACTIONS = ("arm", "rearm", "disarm", "sleep", "watchdog")
WATCHDOG_LEAST_S = 60

_SECOND_NS = 1_000_000_000


class Attn:
    """The pin and what may move it. `high` is its level; `pulses` are the times at which the watchdog pulled it low."""

    def __init__(self, *, off: bool = False) -> None:
        self.high = True
        self.off = off
        self.pulses: deque[int] = deque(maxlen=1000)
        self.watched: set[str] = set()
        self.files: list[str] = []
        self.fired: list[str] = []
        self.payload = ""
        self.payload_s = 0
        self._due_ns = NEVER
        self._watchdog_ns = 0
        self._watchdog_due_ns = NEVER

    def set_mode(self, words: list[str], seconds: int, files: list[str] | None, now_ns: int) -> None:
        """Carry out the words of `mode`. Raises CardError for words that are none, or lack what they need."""
        _check(words, files)
        if "watchdog" in words:
            self._watch(seconds, now_ns)
            return
        for word in words:
            self.watched |= {word} & set(WATCHED)
            self.watched -= set(WATCHED) if word == "-all" else {word.removeprefix("-")} - {word}
        self.files = files or self.files
        if "disarm" in words:
            self._release("")
            self._watchdog_ns, self._watchdog_due_ns = 0, NEVER
        if {"arm", "sleep"} & set(words) or ("rearm" in words and (self.high or seconds)):
            self.high, self.fired = False, []
            self._due_ns = now_ns + seconds * _SECOND_NS if seconds > 0 else NEVER

    def notify(self, what: str, *names: str) -> None:
        """Something happened: fires if it is armed for that. `names` are the Notefiles that changed."""
        if what not in self.watched or self.off:
            return
        if what != "files":
            self._release(what)
        for name in names:
            if name in self.files:
                self._release(name)

    def heard(self, now_ns: int) -> None:
        """The host sent a request: the watchdog starts over."""
        if self._watchdog_ns:
            self._watchdog_due_ns = now_ns + self._watchdog_ns

    def due_ns(self) -> int:
        """When the pin moves by itself."""
        return NEVER if self.off else min(self._due_ns, self._watchdog_due_ns)

    def expire(self, at_ns: int) -> None:
        """Its time has come: the watchdog pulses, anything else ends."""
        if at_ns >= self._watchdog_due_ns:
            self.pulses.append(at_ns)
            self.fired = [*self.fired, "watchdog"] if "watchdog" not in self.fired else self.fired
            self._watchdog_due_ns = at_ns + self._watchdog_ns
        if at_ns >= self._due_ns:
            self._release("timeout")

    def state(self) -> Fields:
        """What card.attn replies."""
        reply: Fields = {"set": True} if self.high else {}
        if self.fired:
            reply["files"] = list(self.fired)
        if self.off:
            reply["off"] = True
        return reply

    def _watch(self, seconds: int, now_ns: int) -> None:
        if seconds < WATCHDOG_LEAST_S:
            raise CardError(f"seconds: must be at least {WATCHDOG_LEAST_S} with mode watchdog")
        self._watchdog_ns = seconds * _SECOND_NS
        self._watchdog_due_ns = now_ns + self._watchdog_ns

    def _release(self, why: str) -> None:
        if why and why not in self.fired:
            self.fired.append(why)
        self.high = True
        self._due_ns = NEVER


def _check(words: list[str], files: list[str] | None) -> None:
    for word in words:
        if word not in ACTIONS and word.removeprefix("-") not in (*WATCHED, "all"):
            raise CardError(f"mode: {word} is not a word of card.attn")
    if "files" in words and not files:
        raise CardError("files: required with mode files")
