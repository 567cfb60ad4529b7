"""Emulated Edge Impulse Studio: the part of its REST API that a model is imported by, with faults on demand.

Interface: its OpenAPI description, as in PyPI edgeimpulse-api 1.96.3. Answers hold the members that a client needs,
not all there are. How the service behaves beyond its description is assumed: failures as `success: false` in a 200 or
with a status, a key that opens one project, builds that take some polls. It listens on this machine only.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from judder.emulator.edge_impulse import listening

CREATED = "2026-03-01T09:30:00.000Z"
FILES = {"tflite-float": "TensorFlow Lite (float32)", "tflite-int8": "TensorFlow Lite (int8 quantized)"}
"""Downloads of a learning block: how they are called in links, and in the list."""

PATHS = {
    "": ("GET", "_info"),
    "/impulse": ("GET", "_impulse"),
    "/dsp/{block}": ("GET", "_dsp"),
    "/dsp/{block}/metadata": ("GET", "_dsp_metadata"),
    "/training/keras/{learn}/metadata": ("GET", "_learned"),
    "/training/anomaly/{learn}/metadata": ("GET", "_learned"),
    "/downloads": ("GET", "_downloads"),
    "/learn-data/{learn}/model/{file}": ("GET", "_file"),
    "/deployment/last": ("GET", "_last"),
    "/deployment/history/{version}/download": ("GET", "_deployment"),
    "/jobs/{job}/status": ("GET", "_job"),
    "/jobs/build-ondevice-model": ("POST", "_build"),
}
"""Of a project, each with its method and what answers it."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Block:
    """A processing block, with its parameters as Studio shows them, and how many features it gave."""

    number: int
    kind: str
    version: int
    parameters: dict[str, str]
    features: int
    axes: tuple[str, ...] = ("accX", "accY", "accZ")
    normalize: str = "none"
    generated: bool = True

    def layout(self) -> dict[str, Any]:
        return {
            "id": self.number,
            "type": self.kind,
            "name": self.kind,
            "title": self.kind,
            "axes": list(self.axes),
            "implementationVersion": self.version,
        }

    def config(self) -> dict[str, Any]:
        items = [
            {"param": name, "name": name, "value": value, "defaultValue": value, "type": "string"}
            for name, value in self.parameters.items()
        ]
        dsp = {"id": self.number, "type": self.kind, "inputAxes": list(self.axes), "normalizeData": self.normalize}
        return {"dsp": dsp, "config": [{"group": "Parameters", "items": items}]}


@dataclass
class Learn:
    """A learning block: the metadata that training gave, and the files to download."""

    number: int
    kind: str
    dsp: tuple[int, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Project:
    """With one impulse. `builds` are deployments by version; `next_build` is what a job makes."""

    number: int
    name: str
    window_ms: int
    rate_hz: float
    blocks: list[Block]
    learning: list[Learn]
    post_processing: list[str] = field(default_factory=list)
    input_kind: str = "time-series"
    builds: dict[int, bytes] = field(default_factory=dict)
    changed: bool = False
    """Since the last deployment, which Studio then keeps no longer."""
    next_build: bytes = b""

    def layout(self) -> dict[str, Any]:
        entry = {"id": 1, "type": self.input_kind, "windowSizeMs": self.window_ms, "frequencyHz": self.rate_hz}
        return {
            "id": 1,
            "name": "Impulse #1",
            "inputBlocks": [entry],
            "dspBlocks": [block.layout() for block in self.blocks],
            "learnBlocks": [
                {"id": one.number, "type": one.kind, "name": one.kind, "title": one.kind, "dsp": list(one.dsp)}
                for one in self.learning
            ],
            "postProcessingBlocks": [
                {"id": 90 + number, "type": kind, "name": kind, "title": kind, "implementationVersion": 1}
                for number, kind in enumerate(self.post_processing)
            ],
        }

    def downloads(self) -> list[dict[str, Any]]:
        return [
            {
                "id": name,
                "name": "Classifier model",
                "type": FILES[name],
                "size": f"{len(content)} bytes",
                "link": f"/v1/api/{self.number}/learn-data/{one.number}/model/{name}",
            }
            for one in self.learning
            for name, content in one.files.items()
        ]


_Numbered = TypeVar("_Numbered", Block, Learn, Project)


@dataclass
class Fault:
    """What happens to the next `times` requests whose path contains `path`.

    status: that HTTP status, with `retry_after` if given. refuse: `success: false` in a 200. text: a 200 with
    `content` for a body. redirect: to `content`. reset: the connection.
    """

    kind: str
    path: str = ""
    times: int = 1
    status: int = 500
    retry_after: str | None = None
    content: str = "<html>Just a moment</html>"


@dataclass
class Studio:
    """The service. `api_key` opens all of `projects`. A job is done after `job_polls` looks at it, if it succeeds."""

    api_key: str
    projects: list[Project]
    faults: list[Fault] = field(default_factory=list)
    job_polls: int = 1
    job_succeeds: bool = True
    requests: list[str] = field(default_factory=list)
    url: str = ""
    _jobs: dict[int, tuple[Project, int]] = field(default_factory=dict)
    _polls: dict[int, int] = field(default_factory=dict)

    def app(self) -> web.Application:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        app = web.Application(middlewares=[guard])
        app.router.add_get("/v1/api/projects", self._list)
        for path, (method, name) in PATHS.items():
            app.router.add_route(method, "/v1/api/{project:\\d+}" + path, getattr(self, name))
        return app

    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        for fault in self.faults:
            if fault.times and fault.path in request.path:
                fault.times -= 1
                return _faulty(request, fault)
        if request.headers.get("x-api-key") != self.api_key:
            return _failed("Invalid API key", 401)
        try:
            return await handler(request)
        except LookupError as error:
            return _failed(f"No such thing: {error.args[0]}")

    async def _list(self, request: web.Request) -> web.Response:
        return _done(projects=[{"id": one.number, "name": one.name} for one in self.projects])

    async def _info(self, request: web.Request) -> web.Response:
        project = self._project(request)
        return _done(project={"id": project.number, "name": project.name})

    async def _impulse(self, request: web.Request) -> web.Response:
        project = self._project(request)
        return _done(impulse=project.layout()) if project.blocks else _done()

    async def _dsp(self, request: web.Request) -> web.Response:
        return _done(**self._block(request).config())

    async def _dsp_metadata(self, request: web.Request) -> web.Response:
        block, project = self._block(request), self._project(request)
        return _done(
            created=CREATED,
            generated=block.generated,
            dspConfig=block.parameters,
            featureCount=block.features,
            windowSizeMs=project.window_ms,
            frequency=project.rate_hz,
        )

    async def _learned(self, request: web.Request) -> web.Response:
        return _done(**{"created": CREATED, **self._learn(request).metadata})

    async def _downloads(self, request: web.Request) -> web.Response:
        return _done(downloads=self._project(request).downloads())

    async def _file(self, request: web.Request) -> web.Response:
        content = self._learn(request).files[request.match_info["file"]]
        return web.Response(body=content, content_type="application/octet-stream")

    async def _last(self, request: web.Request) -> web.Response:
        project = self._project(request)
        if not project.builds or project.changed:
            return _done(hasBuild=False)
        build = {"version": max(project.builds), "deploymentType": "zip", "engine": "tflite", "created": CREATED}
        return _done(hasBuild=True, lastBuild=build)

    async def _deployment(self, request: web.Request) -> web.Response:
        content = self._project(request).builds[int(request.match_info["version"])]
        return web.Response(body=content, content_type="application/zip")

    async def _build(self, request: web.Request) -> web.Response:
        project, wanted = self._project(request), await request.json()
        if request.query.get("type") != "zip" or wanted.get("engine") not in ("tflite", "tflite-eon"):
            return _failed("Unknown deployment target or engine")
        number, version = 1000 + len(self._jobs), max(project.builds, default=0) + 1
        self._jobs[number] = project, version
        return _done(id=number, deploymentVersion=version)

    async def _job(self, request: web.Request) -> web.Response:
        number = int(request.match_info["job"])
        project, version = self._jobs[number]
        self._polls[number] = self._polls.get(number, 0) + 1
        job: dict[str, Any] = {"id": number, "category": "Building project", "created": CREATED, "started": CREATED}
        if self._polls[number] >= self.job_polls:
            job |= {"finished": CREATED, "finishedSuccessful": self.job_succeeds}
            if self.job_succeeds:
                project.builds[version] = project.next_build
        return _done(job=job)

    def _project(self, request: web.Request) -> Project:
        number = int(request.match_info["project"])
        return _one(self.projects, number, "project")

    def _block(self, request: web.Request) -> Block:
        return _one(self._project(request).blocks, int(request.match_info["block"]), "processing block")

    def _learn(self, request: web.Request) -> Learn:
        return _one(self._project(request).learning, int(request.match_info["learn"]), "learning block")


def _one(among: Iterable[_Numbered], number: int, what: str) -> _Numbered:
    for one in among:
        if one.number == number:
            return one
    raise LookupError(f"{what} {number}")


def _done(**members: Any) -> web.Response:
    return web.json_response({"success": True, **members})


def _failed(reason: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"success": False, "error": reason}, status=status, headers=headers)


def _faulty(request: web.Request, fault: Fault) -> web.Response:
    if fault.kind == "status":
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        return _failed("as told", fault.status, headers)
    if fault.kind == "refuse":
        return _failed("as told")
    if fault.kind == "text":
        return web.Response(text=fault.content)
    if fault.kind == "redirect":
        return web.Response(status=302, headers={"Location": fault.content})
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # to nobody


@asynccontextmanager
async def running(service: Studio) -> AsyncIterator[Studio]:
    """The service, listening at its `url` on a free port of this machine. Raises OSError."""
    async with listening(service.app()) as url:
        service.url = f"{url}/v1"
        yield service
