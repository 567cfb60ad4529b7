"""A fleet on an emulated Notehub, with time that only moves when somebody sleeps."""

import asyncio
import json
import struct
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from zlib import crc32

from judder.binpack import MARKER, Binpack, Part, pack
from judder.emulator.notehub_api import NotehubApi, running
from judder.emulator.simulated_device import fleet
from judder.notehub import connected
from judder.program import INTERPRETER_ALONE

START_S = 1_795_000_000.0
TOKEN = "a-personal-access-token"


class Clock:
    """Its `sleep` is what makes it later."""

    def __init__(self):
        self.s = START_S

    def now_s(self):
        return self.s

    async def sleep(self, seconds):
        self.s += seconds


def service(devices=3, clock=None, **options):
    """The API of a project with so many simulated devices; `fail_percent` and `fates` are of the fleet."""
    clock = clock or Clock()
    of_fleet = {name: options.pop(name) for name in ("fail_percent", "fates", "seed") if name in options}
    return NotehubApi(fleet(clock.now_s, devices, **of_fleet), TOKEN, **options), clock


@asynccontextmanager
async def asked(api, clock, *, token=TOKEN, project=None, plan=None):
    """The service listens, and a client of it."""
    async with (
        running(api),
        connected(token, project or api.project.uid, api.url, sleep=clock.sleep, plan=plan) as hub,
    ):
        yield hub


def ask(api, clock, work, **options):
    """What `work` gives with a client of the service."""

    async def go() -> object:
        async with asked(api, clock, **options) as hub:
            return await work(hub)

    return asyncio.run(go())


def simulated(api):
    """The devices themselves, by UID."""
    return {uid: entry.device for uid, entry in api.project.devices.items()}


def sent(api, method=""):
    """Method and path below the project of the requests that came."""
    prefix = "/v1/projects/" + api.project.uid.replace(":", "%3A")
    return [(one.method, one.path.removeprefix(prefix)) for one in api.requests if method in ("", one.method)]


def model_file(seed=0):
    """What begins and ends as a model file; nothing in between."""
    body = b"VM\xc1\x7f" + bytes([seed]) * 60
    return body + struct.pack("<I", crc32(body))


def binpack(version="2.0.0", info=True):
    """An image of a program that is no more than its vectors."""
    program = struct.pack("<111I", 0x200A0000, *[INTERPRETER_ALONE.address + 1] * 110)
    said = MARKER + json.dumps({"product": "other", "version": version}, separators=(",", ":")) if info else ""
    part = Part(INTERPRETER_ALONE.name, INTERPRETER_ALONE.address, program)
    return pack(Binpack(datetime(2026, 5, 4, 12, tzinfo=UTC), "stm32", [part], said))
