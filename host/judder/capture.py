"""Capture now: a request to devices with an ID, which they name in their answer.

The request is a note to capture.qi, `{"id": ID}`, or a signal, `{"capture": ID}`; the answer a note to capture.qo,
`{"id": ID, "boot": "<8 hex digits>", "sequence": N}`, the key of the window.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from judder.notehub import Notehub
from judder.rollout import LEAST_INTERVAL_S

REQUEST, ANSWER = "capture.qi", "capture.qo"
ID_BYTES = 32
DEVICES_IN_QUERY = 100


@dataclass(frozen=True)
class Captured:
    """A device's answer."""

    device: str
    boot: str
    sequence: int


def new_id() -> str:
    """Of a request; a device takes each only once."""
    return secrets.token_hex(4)


async def ask(hub: Notehub, devices: Sequence[str], request: str, *, signal: bool = False) -> list[str]:
    """Returns the devices that cannot have heard it: only a signal tells."""
    deaf = []
    for device in devices:
        if not signal:
            await hub.send_note(device, REQUEST, {"id": request})
        elif not await hub.signal(device, {"capture": request}):
            deaf.append(device)
    return deaf


async def answers(
    hub: Notehub,
    devices: Sequence[str],
    request: str,
    timeout_s: float,
    *,
    now_s: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[Captured]:
    """Those that come within the time, in the order of `devices`."""
    until_s = now_s() + timeout_s
    found: dict[str, Captured] = {}
    while True:
        found |= await _answered(hub, devices, request)
        left_s = until_s - now_s()
        if len(found) == len(devices) or left_s <= 0:
            return [found[device] for device in devices if device in found]
        await sleep(LEAST_INTERVAL_S)


async def _answered(hub: Notehub, devices: Sequence[str], request: str) -> dict[str, Captured]:
    chosen = devices if len(devices) <= DEVICES_IN_QUERY else ()
    events, _ = await hub.events([ANSWER], chosen, newest_first=True, limit=max(100, 2 * len(devices)))
    found = {}
    for event in events:
        device, body = str(event.get("device")), event.get("body")
        if device in devices and isinstance(body, dict) and str(body.get("id")) == request:
            with suppress(TypeError, ValueError, OverflowError):  # what names no window is no answer
                found[device] = Captured(device, str(body.get("boot", "")), int(body.get("sequence", -1)))
    return found
