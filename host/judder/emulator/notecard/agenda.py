"""What time alone brings: syncs, downloads, the watchdog, queued web requests, and whatever a script wants to happen.

Everything happens in its order, and as of the moment at which it was due, whenever somebody looks.
"""

import heapq
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from judder.emulator.notecard.line import Fields
from judder.emulator.notecard.link import NEVER

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard

Action = Callable[["Notecard"], None]


class Agenda:
    """The card's. `now_ns` is the bench's time; while something overdue happens, the time at which it was due."""

    def __init__(self, card: "Notecard") -> None:
        self._card = card
        self._happening_ns: int | None = None
        self._actions: list[tuple[int, int, Action]] = []
        self._order = itertools.count()

    def now_ns(self) -> int:
        return self._card.clock.now_ns() if self._happening_ns is None else self._happening_ns

    def at(self, at_ns: int, action: Action) -> None:
        """Have `action` done at that time."""
        heapq.heappush(self._actions, (at_ns, next(self._order), action))

    def advance(self, to_ns: int | None = None) -> None:
        """Let everything happen that is due by then, by default by now."""
        if self._happening_ns is not None:
            return
        to_ns = self.now_ns() if to_ns is None else to_ns
        while True:
            due_ns, happen = min(self._dues(), key=_due_ns)
            if due_ns > to_ns:
                return
            self._happening_ns = due_ns
            try:
                happen()
            finally:
                self._happening_ns = None

    def due_ns(self) -> int:
        """When the next thing happens."""
        return min(map(_due_ns, self._dues()))

    def _dues(self) -> tuple[tuple[int, Callable[[], None]], ...]:
        card = self._card
        return (
            (self._actions[0][0] if self._actions else NEVER, self._do_next),
            (self._sync_due_ns(), self._sync),
            (card.attn.due_ns(), self._move_attn),
            (card.update.due_ns(), self._finish_download),
            (card.outboard.due_ns(), self._flash_host),
            (card.link.session_ns(card.queued[0].since_ns) if card.queued else NEVER, self._send_queued),
        )

    def _do_next(self) -> None:
        _, _, action = heapq.heappop(self._actions)
        action(self._card)

    def _sync_due_ns(self) -> int:
        card = self._card
        due_ns = card.link.sync_due_ns()
        waiting_ns = card.twin.waiting_since_ns
        if waiting_ns is not None and card.link.mode == "continuous" and card.hub.get("sync"):
            due_ns = min(due_ns, card.link.reach_ns(waiting_ns))
        if card.update.unsent:
            due_ns = min(due_ns, card.link.reach_ns(card.update.unsent[0].at_ns))
        return due_ns

    def _sync(self) -> None:
        """Give Notehub what is new here, and take what is new there."""
        card, now_ns = self._card, self.now_ns()
        if card.link.completed_ns is None:
            card.attn.notify("connected")
        card.link.synced(now_ns)
        card.trace("sync")
        for event in card.notefiles.sync():
            card.twin.events.append(event)
            card.trace("event", file=event.file, body=event.body, bytes=len(event.payload), note=event.note)
        arrived = {note.file for note in card.twin.inbound}
        while card.twin.inbound:
            card.notefiles.receive(card.twin.inbound.popleft(), card.time_s(now_ns))
        card.attn.notify("files", *sorted(arrived))
        if card.environment.sync(card.twin.environment, card.time_s(now_ns)):
            card.attn.notify("env")
        card.update.offer(card.twin.firmware, now_ns)
        card.twin.host_version = card.host_version
        card.twin.host_status = card.update.status
        card.twin.phases += [(card.time_s(phase.at_ns), phase.mode, phase.status) for phase in card.update.unsent]
        card.update.unsent.clear()
        card.twin.waiting_since_ns = None

    def _move_attn(self) -> None:
        self._card.attn.expire(self.now_ns())
        self._card.trace("attn", fired=self._card.attn.fired)

    def _finish_download(self) -> None:
        card, now_ns = self._card, self.now_ns()
        network_ns = card.link.network_ns(now_ns)
        stall_ns = sum(fault.stall_ns() for fault in card.faults)
        if network_ns >= NEVER:
            card.update.abort(now_ns)
        elif network_ns + stall_ns > now_ns:
            card.update.postpone(network_ns + stall_ns)
        else:
            card.update.finish(now_ns)
            card.trace("download", file=card.update.firmware.name if card.update.firmware else "")

    def _flash_host(self) -> None:
        self._card.outboard.step(self.now_ns())

    def _send_queued(self) -> None:
        card = self._card
        queued = card.queued.popleft()
        response = card.response(queued.request)
        if response is not None and queued.file:
            body: Fields = {"result": response.status, "payload": response.body.decode(errors="replace")}
            note = queued.note or "response"
            card.notefiles.update(queued.file, note, body, b"", card.time_s(self.now_ns()))


def _due_ns(due: tuple[int, Callable[[], None]]) -> int:
    return due[0]
