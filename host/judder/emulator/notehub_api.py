"""Emulated Notehub's HTTP API: the part that fleets are looked after by, with faults on demand.

Interface: its OpenAPI description, as in PyPI notehub-py 6.7.0. Answers hold the members that a client needs, not all
there are. Assumed: an update without any filter goes to all devices; a cursor names the last event of the page before,
which is shown once more; which errors have which status. It listens on this machine unless told otherwise.
"""

import base64
import binascii
import http
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from judder.emulator.edge_impulse import listening
from judder.emulator.notecard.twin import Firmware, Inbound
from judder.emulator.notehub_project import Entry, Members, Project, timestamp
from judder.notehub import FILTERS

BODY_LIMIT = 4 * 1024 * 1024
PATHS = {
    "GET /devices": "_devices",
    "GET /fleets": "_fleets",
    "GET /firmware": "_firmware",
    "PUT /firmware/{kind}/{name}": "_upload",
    "GET /firmware/{kind}/{name}": "_download",
    "POST /dfu/{kind}/{action:update|cancel}": "_act",
    "GET /dfu/{kind}/status": "_statuses",
    "GET /dfu/{kind}/history": "_histories",
    "GET /devices/{device}/dfu/{kind}/status": "_status",
    "GET /devices/{device}/dfu/{kind}/history": "_history",
    "GET /events-cursor": "_events",
    "POST /devices/{device}/notes/{file}": "_note",
    "POST /devices/{device}/signal": "_signal",
    "GET /routes": "_routes",
    "POST /routes": "_put_route",
    "GET /routes/{route}": "_route",
    "PUT /routes/{route}": "_put_route",
    "GET /routes/{route}/route-logs": "_route_logs",
}
"""Of a project, each with what answers it; environment variables are added for each scope."""
SCOPES = ("", "/fleets/{fleet}", "/devices/{device}")
_FAULT: ContextVar[str] = ContextVar("fault")
"""What is to go wrong in the request under way."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Fault:
    """What happens to the next `times` requests of `method` (all if empty) whose path contains `path`.

    status: that HTTP status, with `retry_after` if given. lose: it is carried out, and the connection ends without an
    answer. reset: the connection ends before. partial: of a list of devices every third is left out, and every other
    third has no `current`. corrupt: a byte of a file is changed, as it comes or goes.
    """

    kind: str
    path: str = ""
    method: str = ""
    times: int = 1
    status: int = 503
    retry_after: str | None = None


@dataclass(frozen=True)
class Seen:
    """A request that has come."""

    method: str
    path: str
    body: bytes


class ApiError(Exception):
    """Becomes an answer with `status`."""

    def __init__(self, status: int, reason: str, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after


@dataclass
class NotehubApi:
    """The service. Without `token` any will do; with `reader_token` one may look and change nothing.

    `requests_per_min` (0: no limit): as Notehub's plans have it, counted by the project's clock. `says_md5`: whether
    what is told of files has it.
    """

    project: Project
    token: str = ""
    reader_token: str = ""
    requests_per_min: int = 0
    page_size: int = 50
    says_md5: bool = True
    faults: list[Fault] = field(default_factory=list)
    requests: list[Seen] = field(default_factory=list)
    url: str = ""
    _recent_s: deque[float] = field(default_factory=deque)

    def app(self) -> web.Application:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard], client_max_size=BODY_LIMIT)
        paths = dict(PATHS)
        for scope in SCOPES:
            paths |= {
                f"GET {scope}/environment_variables": "_variables",
                f"PUT {scope}/environment_variables": "_set_variables",
                f"DELETE {scope}/environment_variables/{{key}}": "_unset_variable",
                f"GET {scope}/environment_hierarchy": "_hierarchy",
            }
        for path, name in paths.items():
            method, _, tail = path.partition(" ")
            app.router.add_route(method, "/v1/projects/{project}" + tail, getattr(self, name))
        return app

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(Seen(request.method, request.raw_path, await request.read()))
        fault = self._fault(request)
        try:
            if fault is not None and fault.kind == "status":
                return _failed(fault.status, "as told", fault.retry_after)
            if fault is not None and fault.kind == "reset":
                return _nothing(request)
            self._check_token(request)
            self._check_rate()
            self._check_project(request)
            _FAULT.set(fault.kind if fault is not None else "")
            answer = await handler(request)
        except ApiError as error:
            return _failed(error.status, str(error), error.retry_after)
        except web.HTTPException as error:
            return _failed(error.status, error.reason)
        return _nothing(request) if fault is not None and fault.kind == "lose" else answer

    def _fault(self, request: web.Request) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.path in request.raw_path and fault.method in ("", request.method):
                fault.times -= 1
                return fault
        return None

    def _check_token(self, request: web.Request) -> None:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or not given or (self.token and given not in (self.token, self.reader_token)):
            raise ApiError(401, "unauthorized: no valid access token")
        if given == self.reader_token and request.method != "GET":
            raise ApiError(403, "forbidden: the role of this user is viewer")

    def _check_project(self, request: web.Request) -> None:
        asked = request.match_info.get("project", self.project.uid)
        if asked not in (self.project.uid, self.project.product):
            raise ApiError(404, f"project {asked} not found")

    def _check_rate(self) -> None:
        """Requests that are refused do not count."""
        now_s = self.project.now_s()
        while self._recent_s and self._recent_s[0] <= now_s - 60:
            self._recent_s.popleft()
        if self.requests_per_min and len(self._recent_s) >= self.requests_per_min:
            raise ApiError(429, "too many requests", f"{max(1, math.ceil(self._recent_s[0] + 60 - now_s))}")
        self._recent_s.append(now_s)

    # --- devices ------------------------------------------------------------------------------------------------------

    async def _devices(self, request: web.Request) -> web.Response:
        return self._page(request, "devices", (_device(entry) for entry in self._chosen(request)))

    async def _fleets(self, request: web.Request) -> web.Response:
        created = timestamp(0)
        found = [
            {"uid": one.uid, "label": one.label, "created": created, "environment_variables": one.variables}
            for one in self.project.fleets.values()
        ]
        return web.json_response({"fleets": found})

    def _chosen(self, request: web.Request) -> list[Entry]:
        """By the filters of the query; without any, all."""
        wanted = {name: request.query.getall(name) for name in FILTERS if name in request.query}
        entries = self.project.devices.values()
        return [entry for entry in entries if all(entry.has(name, values) for name, values in wanted.items())]

    def _page(self, request: web.Request, member: str, found: Iterable[Members]) -> web.Response:
        size, number = _number(request, "pageSize", self.page_size), _number(request, "pageNum", 1)
        if size > 10000:
            raise ApiError(400, "pageSize: at most 10000")
        every = list(found)
        page = every[(number - 1) * size : number * size]
        if _FAULT.get() == "partial":
            page = [
                {name: value for name, value in one.items() if name != "current" or place % 3 != 1}
                for place, one in enumerate(page)
                if place % 3 != 2
            ]
        return web.json_response({member: page, "has_more": len(every) > number * size})

    def _entry(self, request: web.Request) -> Entry:
        uid = request.match_info["device"]
        if uid not in self.project.devices:
            raise ApiError(404, f"device {uid} not found")
        return self.project.devices[uid]

    # --- host firmware ------------------------------------------------------------------------------------------------

    async def _firmware(self, request: web.Request) -> web.Response:
        wanted = {name: request.query[name] for name in ("version", "filename", "md5") if name in request.query}
        shown = [self._info(one) for one in self.project.firmware.values()]
        if request.query.get("firmwareType", "host") != "host":
            shown = []
        whole = {one.name: one.about["md5"] for one in self.project.firmware.values()}
        found = [
            one
            for one in shown
            if all(value == (whole[one["filename"]] if name == "md5" else one[name]) for name, value in wanted.items())
        ]
        found.sort(key=lambda one: str(one.get(request.query.get("sortBy", "created"), "")))
        return web.json_response(found[::-1] if request.query.get("sortOrder") == "desc" else found)

    async def _upload(self, request: web.Request) -> web.Response:
        _check_kind(request)
        data = await request.read()
        if request.content_type != "application/octet-stream" or not data:
            raise ApiError(400, "the body has to be a file, as application/octet-stream")
        if _FAULT.get() == "corrupt":
            data = _corrupted(data)
        query = request.query
        kept = self.project.keep(request.match_info["name"], data, query.get("version", ""), query.get("notes", ""))
        return web.json_response(self._info(kept))

    async def _download(self, request: web.Request) -> web.Response:
        data = self._stored(request.match_info["name"]).data
        if _FAULT.get() == "corrupt":
            data = _corrupted(data)
        return web.Response(body=data, content_type="application/octet-stream")

    async def _act(self, request: web.Request) -> web.Response:
        """An update without a filter is for everybody."""
        _check_kind(request)
        firmware = None
        if request.match_info["action"] == "update":
            firmware = self._stored(str((await _json(request)).get("filename", "")))
        for entry in self._chosen(request):
            if firmware is not None:
                self.project.update(entry, firmware)
            else:
                self.project.cancel(entry)
        return web.json_response({})

    async def _statuses(self, request: web.Request) -> web.Response:
        return self._page(request, "devices", (self.project.status(entry) for entry in self._chosen(request)))

    async def _histories(self, request: web.Request) -> web.Response:
        return self._page(request, "devices", (self.project.history(entry) for entry in self._chosen(request)))

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self.project.status(self._entry(request)))

    async def _history(self, request: web.Request) -> web.Response:
        return web.json_response(self.project.history(self._entry(request)))

    def _stored(self, name: str) -> Firmware:
        if name not in self.project.firmware:
            raise ApiError(404, f"firmware {name} not found")
        return self.project.firmware[name]

    def _info(self, firmware: Firmware) -> Members:
        info = firmware.info
        shown = {
            "filename": firmware.name,
            "version": firmware.version,
            "md5": firmware.about["md5"],
            "created": timestamp(firmware.created_s),
            "type": "host",
            "target": str(info.get("target", "")),
            "product": str(info.get("product", "")),
            "organization": str(info.get("org", "")),
            "description": str(info.get("description", "")),
            "built": str(info.get("built", "")),
            "tags": "",
            "notes": self.project.notes[firmware.name],
            "published": True,
        }
        return shown if self.says_md5 else {name: value for name, value in shown.items() if name != "md5"}

    # --- environment variables ----------------------------------------------------------------------------------------

    def _scope(self, request: web.Request) -> dict[str, str]:
        if "device" in request.match_info:
            return self._entry(request).variables
        if "fleet" not in request.match_info:
            return self.project.variables
        uid = request.match_info["fleet"]
        if uid not in self.project.fleets:
            raise ApiError(404, f"fleet {uid} not found")
        return self.project.fleets[uid].variables

    async def _variables(self, request: web.Request) -> web.Response:
        found: Members = {"environment_variables": self._scope(request)}
        if "device" in request.match_info:
            effective = self.project.environment(self._entry(request))
            found |= {"environment_variables_effective": effective, "environment_variables_env_default": {}}
        return web.json_response(found)

    async def _set_variables(self, request: web.Request) -> web.Response:
        scope, given = self._scope(request), (await _json(request)).get("environment_variables")
        if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
            raise ApiError(400, "environment_variables has to be an object of texts")
        scope.update(given)
        self.project.changed()
        return web.json_response({"environment_variables": scope})

    async def _unset_variable(self, request: web.Request) -> web.Response:
        scope, key = self._scope(request), request.match_info["key"]
        if key not in scope:
            raise ApiError(404, f"environment variable {key} not found")
        del scope[key]
        self.project.changed()
        return web.json_response({"environment_variables": scope})

    async def _hierarchy(self, request: web.Request) -> web.Response:
        self._scope(request)
        info = request.match_info
        return web.json_response(self.project.tree(info.get("fleet", ""), info.get("device", "")))

    # --- events, notes, signals ---------------------------------------------------------------------------------------

    async def _events(self, request: web.Request) -> web.Response:
        query, limit = request.query, _number(request, "limit", self.page_size)
        found = list(self.project.collect())
        if query.get("files"):
            found = [one for one in found if one["file"] in query["files"].split(",")]
        if query.get("systemFilesOnly") == "true":
            found = [one for one in found if one["file"].startswith("_")]
        if devices := query.getall("deviceUID", []):
            found = [one for one in found if one["device"] in devices]
        if fleets := query.getall("fleetUID", []):
            members = {uid for uid, entry in self.project.devices.items() if entry.has("fleetUID", fleets)}
            found = [one for one in found if one["device"] in members]
        if query.get("sortOrder") == "desc":
            found.reverse()
        start = next((at for at, one in enumerate(found) if one["event"] == query.get("cursor")), 0)
        page = found[start : start + limit]
        last = page[-1]["event"] if page else query.get("cursor", "")
        return web.json_response({"events": page, "next_cursor": last, "has_more": len(found) > start + limit})

    async def _note(self, request: web.Request) -> web.Response:
        file, given = request.match_info["file"], await _json(request)
        if not file.endswith((".qi", ".qis", ".db", ".dbs")):
            raise ApiError(400, f"{file} is no Notefile that goes to a device")
        try:
            payload = base64.b64decode(given.get("payload", ""), validate=True)
        except (binascii.Error, TypeError):
            raise ApiError(400, "payload is not base64") from None
        self._entry(request).device.send_note(Inbound(file, given.get("body"), payload))
        return web.json_response({})

    async def _signal(self, request: web.Request) -> web.Response:
        body = (await _json(request)).get("body")
        if not isinstance(body, dict):
            raise ApiError(400, "body has to be an object")
        return web.json_response({"connected": self._entry(request).device.signal(body)})

    # --- routes -------------------------------------------------------------------------------------------------------

    async def _routes(self, request: web.Request) -> web.Response:
        names = ("uid", "label", "type", "modified", "disabled")
        return web.json_response([{name: one[name] for name in names} for one in self.project.routes.values()])

    async def _route(self, request: web.Request) -> web.Response:
        return web.json_response(self._known_route(request))

    async def _put_route(self, request: web.Request) -> web.Response:
        given = await _json(request)
        uid = self._known_route(request)["uid"] if "route" in request.match_info else ""
        if given.get("type") == "proxy" and not (given.get("proxy") or {}).get("alias"):
            raise ApiError(400, "a proxy route needs an alias")
        try:
            return web.json_response(self.project.put_route(given, uid))
        except (ValueError, KeyError) as error:
            raise ApiError(400, str(error)) from None

    async def _route_logs(self, request: web.Request) -> web.Response:
        route, hub = self._known_route(request), self.project.hub
        alias = (route.get("proxy") or {}).get("alias")
        recent = [(asked, got) for asked, got in (hub.recent if hub else ()) if asked.route == alias]
        logs = [
            {
                "route_uid": route["uid"],
                "url": route["proxy"]["url"],
                "status": str(got.status),
                "attn": got.status >= 300,
                "text": got.body.decode("utf-8", "replace"),
            }
            for asked, got in recent
        ]
        return web.json_response(logs)

    def _known_route(self, request: web.Request) -> Members:
        uid = request.match_info["route"]
        if uid not in self.project.routes:
            raise ApiError(404, f"route {uid} not found")
        return self.project.routes[uid]


def _device(entry: Entry) -> Members:
    return {
        "uid": entry.device.uid,
        "serial_number": entry.serial_number,
        "product_uid": entry.product,
        "provisioned": timestamp(0),
        "fleet_uids": list(entry.fleets),
        "tags": ",".join(entry.tags),
        "sku": entry.sku,
        "firmware_notecard": entry.notecard_firmware,
        "firmware_host": str(entry.device.running().get("version", "")),
        "voltage": 5.0,
        "temperature": 20.0,
    }


def _check_kind(request: web.Request) -> None:
    if request.match_info["kind"] != "host":
        raise ApiError(400, f"{request.match_info['kind']}: only host firmware is emulated")


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdigit() or int(text) < 1:
        raise ApiError(400, f"{name}: {text} is no number from 1")
    return int(text)


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        found = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is no JSON") from None
    if not isinstance(found, dict):
        raise ApiError(400, "the body has to be an object")
    return found


def _corrupted(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _failed(status: int, reason: str, retry_after: str | None = None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    members = {"err": reason, "code": status, "status": http.HTTPStatus(status).phrase}
    return web.json_response(members, status=status, headers=headers)


def _nothing(request: web.Request) -> web.Response:
    """To nobody: the connection is gone."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@asynccontextmanager
async def running(service: NotehubApi, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[NotehubApi]:
    """The service, listening at its `url`. Raises OSError."""
    async with listening(service.app(), host, port) as service.url:
        yield service
