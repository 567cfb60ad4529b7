"""Notehub's HTTP API, as much of it as a fleet needs: devices, host firmware, environment variables, notes, routes.

Interface: its OpenAPI description, as in PyPI notehub-py 6.7.0. Not tried on the live service (docs/hardware.md).
429 is tried again after Retry-After. Other trouble and lost connections are, too, except for what must not happen
twice: there UncertainError says so, and the caller looks before it repeats.
"""

import asyncio
import base64
import json
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
import yarl

from judder.forwarder import CONNECT_TIMEOUT_S, TIMEOUT_S, is_trouble, retry_after_s

URL = "https://api.notefile.net"
ATTEMPTS = 6
LONGEST_PAUSE_S = 300.0
PAGE_SIZE = 500
FILTERS = (
    "deviceUID",
    "tag",
    "serialNumber",
    "fleetUID",
    "notecardFirmware",
    "location",
    "hostFirmware",
    "productUID",
    "sku",
)
"""What devices are chosen by; each may have several values."""

Members = Mapping[str, Any]
Filters = Mapping[str, Sequence[str]]
Query = Sequence[tuple[str, str]]
_MODEL = re.compile(r"\bmodel ([0-9a-f]{8})\b")  # as boards describe themselves (device/node/node.py)
_BOOT = re.compile(r"\bboot ([0-9a-f]{8})\b")


class NotehubError(Exception):
    """Notehub did not do what it was asked for, in a line. `status`: what it answered, 0 if nothing."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class UncertainError(NotehubError):
    """No answer, or one of trouble: it may have been carried out all the same."""


@dataclass(frozen=True)
class Call:
    """A request. `path` with its query; `body` is bytes, or what becomes JSON."""

    method: str
    path: str
    body: object = None


@dataclass(frozen=True)
class Device:
    """A device of the project. `firmware` is what its host reported."""

    uid: str
    serial_number: str
    fleets: tuple[str, ...]
    firmware: str

    @classmethod
    def of(cls, members: Members) -> Self:
        return cls(
            str(members["uid"]),
            str(members.get("serial_number") or ""),
            tuple(map(str, members.get("fleet_uids") or ())),
            str(members.get("firmware_host") or ""),
        )


@dataclass(frozen=True)
class UpdateStatus:
    """How far the host firmware of a device is; whatever Notehub leaves out is "".

    `version` and `description` are what the host reported; `initiated` says when an update was last asked for,
    `since` when it got into `phase`.
    """

    device: str
    in_progress: bool = False
    version: str = ""
    description: str = ""
    requested_version: str = ""
    initiated: str = ""
    phase: str = ""
    detail: str = ""
    since: str = ""

    @classmethod
    def of(cls, members: Members) -> Self:
        current, status = members.get("current") or {}, members.get("status") or {}
        updates = sorted(status.get("updates") or (), key=lambda one: str(one.get("datetime") or ""))
        last = updates[-1] if updates else {}
        return cls(
            str(members["device_uid"]),
            members.get("dfu_in_progress") is True,
            str(current.get("version") or status.get("current_version") or ""),
            str(current.get("description") or ""),
            str(status.get("requested_version") or ""),
            str(status.get("initiated") or ""),
            str(last.get("phase") or ""),
            str(last.get("description") or last.get("status") or ""),
            str(last.get("datetime") or ""),
        )

    @property
    def model(self) -> str:
        """The id of the model it runs, from `model <id>`."""
        found = _MODEL.search(self.description)
        return found[1] if found else ""

    @property
    def boot(self) -> str:
        """Which start of the host that was, from `boot <id>`."""
        found = _BOOT.search(self.description)
        return found[1] if found else ""


@dataclass(frozen=True)
class Firmware:
    """A file that Notehub keeps; `name` is the one it gave it."""

    name: str
    version: str
    md5: str
    created: str

    @classmethod
    def of(cls, members: Members) -> Self:
        return cls(
            str(members["filename"]),
            str(members.get("version") or ""),
            str(members.get("md5") or "").lower(),
            str(members.get("created") or ""),
        )


@dataclass(frozen=True)
class Scope:
    """Whose environment variables: `kind` is device, fleet or project."""

    kind: str
    uid: str = ""

    @property
    def path(self) -> str:
        return f"/{self.kind}s/{_quoted(self.uid)}" if self.uid else ""


PROJECT = Scope("project")


@dataclass
class Notehub:
    """The API at `url`, for one project (its UID, or that of a product), with a personal access token.

    With `plan`, a dry run: that is told each call that would change something, and only GETs are made.
    """

    session: aiohttp.ClientSession
    token: str = field(repr=False)
    project: str = ""
    url: str = URL
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    plan: Callable[[Call], None] | None = None

    # --- devices and fleets -------------------------------------------------------------------------------------------

    async def devices(self, filters: Filters | None = None) -> list[Device]:
        """Those that the filters choose; without any, all."""
        pages = self._pages("/devices", "devices", _pairs(filters or {}))
        with _expected():
            return [Device.of(one) async for one in pages]

    async def fleets(self) -> dict[str, str]:
        """UID to name."""
        with _expected():
            found = await self._get("/fleets")
            return {str(one["uid"]): str(one["label"]) for one in found["fleets"]}

    # --- host firmware ------------------------------------------------------------------------------------------------

    async def firmware(self, **query: str) -> list[Firmware]:
        """Host firmware that Notehub keeps; `query`: version, filename, md5 ..."""
        pairs = [("firmwareType", "host"), *((name, value) for name, value in query.items() if value)]
        with _expected():
            return [Firmware.of(one) for one in await self._get("/firmware", pairs)]

    async def upload(self, name: str, data: bytes, version: str = "", notes: str = "") -> Firmware | None:
        """Keep a file; None in a dry run. Raises UncertainError."""
        pairs = [(key, value) for key, value in (("version", version), ("notes", notes)) if value]
        found = await self._ask("PUT", f"/firmware/host/{_quoted(name)}", pairs, data, once=True)
        with _expected():
            return None if found is None else Firmware.of(json.loads(found))

    async def download(self, name: str) -> bytes:
        """The content of a file that Notehub keeps."""
        return await self._ask("GET", f"/firmware/host/{_quoted(name)}") or b""

    async def start_update(self, name: str, filters: Filters) -> None:
        """Have the devices download the file. Raises UncertainError; ValueError without a filter, which means all."""
        await self._ask("POST", "/dfu/host/update", _chosen(filters), {"filename": name}, once=True)

    async def cancel_update(self, filters: Filters) -> None:
        """Call off what the devices have not yet done. Raises ValueError without a filter, which means all."""
        await self._ask("POST", "/dfu/host/cancel", _chosen(filters))

    async def update_statuses(self, filters: Filters | None = None) -> list[UpdateStatus]:
        """Of all devices that the filters choose, page by page."""
        pages = self._pages("/dfu/host/status", "devices", _pairs(filters or {}))
        with _expected():
            return [UpdateStatus.of(one) async for one in pages]

    async def update_status(self, device: str) -> UpdateStatus:
        with _expected():
            return UpdateStatus.of(await self._get(f"/devices/{_quoted(device)}/dfu/host/status"))

    async def update_histories(self, filters: Filters | None = None) -> dict[str, list[Members]]:
        """Device to its updates: initiated, requested_version, updates[phase, status, description, datetime]."""
        pages = self._pages("/dfu/host/history", "devices", _pairs(filters or {}))
        with _expected():
            return {str(one["device_uid"]): list(one.get("history") or ()) async for one in pages}

    async def update_history(self, device: str) -> list[Members]:
        """Of one device, as in update_histories."""
        with _expected():
            found = await self._get(f"/devices/{_quoted(device)}/dfu/host/history")
            return list(found.get("history") or ())

    # --- environment variables ----------------------------------------------------------------------------------------

    async def variables(self, scope: Scope) -> dict[str, str]:
        """Those set in this scope itself."""
        with _expected():
            found = await self._get(f"{scope.path}/environment_variables")
            return {str(name): str(value) for name, value in found["environment_variables"].items()}

    async def set_variables(self, scope: Scope, variables: Mapping[str, str]) -> None:
        """Set these; others of the scope stay."""
        await self._ask("PUT", f"{scope.path}/environment_variables", body={"environment_variables": dict(variables)})

    async def unset_variable(self, scope: Scope, name: str) -> None:
        """Take it away; one that is not there is no error."""
        try:
            await self._ask("DELETE", f"{scope.path}/environment_variables/{_quoted(name)}")
        except NotehubError as error:
            if error.status != 404:
                raise

    async def hierarchy(self, scope: Scope) -> Members:
        """A tree of nodes: type, variables[key, value], children, device_uid."""
        with _expected():
            return dict(await self._get(f"{scope.path}/environment_hierarchy"))

    # --- events, notes, signals ---------------------------------------------------------------------------------------

    async def events(
        self,
        files: Sequence[str] = (),
        devices: Sequence[str] = (),
        *,
        newest_first: bool = False,
        limit: int = 100,
        cursor: str = "",
    ) -> tuple[list[Members], str]:
        """A page of events, and the cursor of the next one, "" after the last. A page may repeat the one before."""
        pairs = [("limit", str(limit)), ("sortOrder", "desc" if newest_first else "asc")]
        pairs += [("files", ",".join(files))] if files else []
        pairs += [("cursor", cursor)] if cursor else []
        with _expected():
            found = await self._get("/events-cursor", pairs + _pairs({"deviceUID": devices}))
            return list(found["events"]), str(found["next_cursor"]) if found["has_more"] else ""

    async def send_note(self, device: str, file: str, body: Members, payload: bytes = b"") -> None:
        """Put a note into a Notefile of the device, which hears of it with its next sync."""
        members: dict[str, Any] = {"body": dict(body)}
        if payload:
            members["payload"] = base64.b64encode(payload).decode()
        await self._ask("POST", f"/devices/{_quoted(device)}/notes/{_quoted(file)}", body=members)

    async def signal(self, device: str, body: Members) -> bool:
        """Tell a device at once or never: False when it is not connected."""
        found = await self._ask("POST", f"/devices/{_quoted(device)}/signal", body={"body": dict(body)})
        with _expected():
            return found is None or json.loads(found)["connected"] is True

    # --- routes -------------------------------------------------------------------------------------------------------

    async def routes(self) -> list[Members]:
        """Of each: uid, label, type, disabled."""
        with _expected():
            return list(await self._get("/routes"))

    async def route(self, uid: str) -> Members:
        with _expected():
            return dict(await self._get(f"/routes/{_quoted(uid)}"))

    async def create_route(self, route: Members) -> None:
        """Raises UncertainError."""
        await self._ask("POST", "/routes", body=route, once=True)

    async def change_route(self, uid: str, route: Members) -> None:
        await self._ask("PUT", f"/routes/{_quoted(uid)}", body=route)

    async def route_logs(self, uid: str) -> list[Members]:
        """Of each request: date, status, text, url."""
        with _expected():
            return list(await self._get(f"/routes/{_quoted(uid)}/route-logs"))

    # --- requests -----------------------------------------------------------------------------------------------------

    async def _pages(self, path: str, member: str, pairs: Query) -> AsyncIterator[Members]:
        number = 1
        while True:
            found = await self._get(path, [*pairs, ("pageSize", str(PAGE_SIZE)), ("pageNum", str(number))])
            page = found[member] or ()
            for one in page:
                yield one
            if not (page and found.get("has_more")):
                return
            number += 1

    async def _get(self, path: str, pairs: Query = ()) -> Any:
        return json.loads(await self._ask("GET", path, pairs) or b"")

    async def _ask(
        self, method: str, path: str, pairs: Query = (), body: object = None, *, once: bool = False
    ) -> bytes | None:
        """What was answered; None in a dry run. `once`: it must not happen twice."""
        path = f"/v1/projects/{_quoted(self.project)}{path}" + (f"?{urlencode(pairs)}" if pairs else "")
        call = Call(method, path, body)
        if self.plan is not None and method != "GET":
            self.plan(call)
            return None
        reason, pause_s = "", 0.0
        for attempt in range(ATTEMPTS):
            if attempt:
                await self.sleep(pause_s)
            pause_s = random.uniform(0.5, 1) * float(2**attempt)
            try:
                status, retry_after, content = await self._attempt(call)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = f"no answer from {self.url} ({type(error).__name__})"
                if once and not isinstance(error, aiohttp.ClientConnectorError):
                    raise UncertainError(reason) from None
                continue
            if 200 <= status < 300:
                return content
            reason = f"Notehub answered {status}: {_said(content)}"
            if not is_trouble(status):
                raise NotehubError(reason + _advice(status, self.project), status)
            if once and status != 429:
                raise UncertainError(reason, status)
            asked_s = retry_after_s(retry_after)
            pause_s = pause_s if asked_s is None else asked_s
            if pause_s > LONGEST_PAUSE_S:
                raise NotehubError(f"{reason}; it asks to wait {pause_s:.0f} s: try again then", status)
        raise NotehubError(f"{reason}; {ATTEMPTS} attempts: try again later")

    async def _attempt(self, call: Call) -> tuple[int, str | None, bytes]:
        headers = {"Authorization": f"Bearer {self.token}"}
        data, members = None, None
        if isinstance(call.body, bytes):
            headers["Content-Type"] = "application/octet-stream"
            data = call.body
        else:
            members = call.body
        url = yarl.URL(self.url.rstrip("/") + call.path, encoded=True)
        asking = self.session.request(call.method, url, data=data, json=members, headers=headers, allow_redirects=False)
        async with asking as response:
            return response.status, response.headers.get("Retry-After"), await response.read()


@asynccontextmanager
async def connected(
    token: str,
    project: str,
    url: str = URL,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    plan: Callable[[Call], None] | None = None,
) -> AsyncIterator[Notehub]:
    """The API, with connections of its own while the block runs."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        session._retry_connection = False  # aiohttp would repeat a PUT of its own accord when its answer is lost
        yield Notehub(session, token, project, url, sleep, plan)


@contextmanager
def _expected() -> Iterator[None]:
    """An answer that is not as Notehub describes it is an error of Notehub's."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise NotehubError(f"an answer is not as Notehub describes it: {error!r}") from None


def _chosen(filters: Filters) -> Query:
    """Raises ValueError when they choose nothing in particular: Notehub then takes all devices."""
    pairs = _pairs(filters)
    if not pairs:
        raise ValueError("an update without a filter would go to every device of the project: choose devices")
    return pairs


def _pairs(filters: Filters) -> list[tuple[str, str]]:
    if unknown := set(filters) - set(FILTERS):
        raise ValueError(f"{', '.join(sorted(unknown))} chooses no devices; {', '.join(FILTERS)} do")
    return [(name, value) for name, values in filters.items() for value in values if value]


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _said(body: bytes) -> str:
    """What an answer says, in a line."""
    try:
        text = str(json.loads(body)["err"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body[:200].decode("utf-8", "replace")
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:200] or "nothing"


def _advice(status: int, project: str) -> str:
    if status == 401:
        return "; set JUDDER_NOTEHUB_TOKEN to a personal access token (notehub.io/api-access)"
    if status == 403:
        return f"; the token's owner may not do this in {project}"
    if status == 404:
        return f"; is {project} the project's UID (JUDDER_NOTEHUB_PROJECT), and the device one of it?"
    return ""
