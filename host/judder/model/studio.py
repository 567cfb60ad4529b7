"""Edge Impulse Studio: the impulse of a project, read from its REST API.

Interface: its OpenAPI description, as in PyPI edgeimpulse-api 1.96.3, and docs.edgeimpulse.com. What it leaves open is
assumed, and was not tried on the live service: the texts that tell a .tflite file among a project's downloads, the
keys of thresholds, and how many samples a window of so many milliseconds has. An answer counts only if it is a 200
and says `success`; 408, 425, 429 and 5xx are tried again, after Retry-After where it is given.
"""

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from judder.forwarder import CONNECT_TIMEOUT_S, TIMEOUT_S, is_trouble, retry_after_s
from judder.model import deployment, tflite
from judder.model.file import CLASS_THRESHOLD, ModelError
from judder.model.impulse import ANOMALY_THRESHOLD, Classifier, Dsp, Impulse, KMeans

URL = "https://studio.edgeimpulse.com/v1"
ATTEMPTS = 4
LONGEST_PAUSE_S = 60.0
JOB_INTERVAL_S = 2.0
JOB_TIMEOUT_S = 600.0
MOST_BYTES = 64 * 1024 * 1024
REDIRECTIONS = 3
_SCORE = re.compile(r"score|confidence", re.IGNORECASE)

Members = Mapping[str, Any]


class StudioError(ModelError):
    """Studio did not give what it was asked for."""


async def fetch(
    api_key: str,
    project: int | None = None,
    url: str = URL,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Impulse:
    """The default impulse of the project; without a number, of the only one that the key opens. Raises ModelError."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        studio = Studio(session, url.rstrip("/"), api_key, sleep)
        try:
            return await _impulse(studio, await _project(studio, project))
        except ModelError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise StudioError(f"{url} gave an answer that is not as Edge Impulse describes it: {error!r}") from None


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Studio:
    """The service at `url`, asked with a project's API key."""

    session: aiohttp.ClientSession
    url: str
    api_key: str
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def get(self, path: str) -> Members:
        return _succeeded(await self._ask("GET", self.url + path))

    async def post(self, path: str, members: Members) -> Members:
        return _succeeded(await self._ask("POST", self.url + path, members))

    async def content(self, link: str) -> bytes:
        """Of a file; `link` is a path, from the API's root or from the host's."""
        body = await self._ask("GET", self.url + link if link.startswith("/api/") else urljoin(self.url, link))
        if body[:1] == b"{":  # a failure in a 200
            _succeeded(body)
        return body

    async def _ask(self, method: str, url: str, members: Members | None = None) -> bytes:
        """The body of a 200, after some attempts if need be."""
        reason, pause_s = "", 0.0
        for attempt in range(ATTEMPTS):
            if attempt:
                await self.sleep(pause_s)
            pause_s = _pause_s(attempt, None)
            try:
                status, headers, body = await self._attempt(method, url, members)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = f"no answer from {self.url} ({type(error).__name__})"
                continue
            if status == 200:
                return body
            reason = f"Edge Impulse answered {status}: {_said(body)}"
            if not is_trouble(status):
                raise StudioError(reason + _advice(status))
            pause_s = _pause_s(attempt, headers.get("Retry-After"))
            if pause_s > LONGEST_PAUSE_S:
                raise StudioError(f"{reason}; it asks to wait {pause_s:.0f} s: try again then")
        raise StudioError(f"{reason}; {ATTEMPTS} attempts: try again later")

    async def _attempt(self, method: str, url: str, members: Members | None) -> tuple[int, Mapping[str, str], bytes]:
        """Follows where files are kept, to which the API key is not sent."""
        for _ in range(REDIRECTIONS):
            ours = urlsplit(url)[:2] == urlsplit(self.url)[:2]
            headers = {"x-api-key": self.api_key} if ours else {}
            asking = self.session.request(method, url, json=members, headers=headers, allow_redirects=False)
            async with asking as response:
                if method != "GET" or response.status not in (301, 302, 303, 307, 308):
                    return response.status, response.headers, await _limited(response)
                url = urljoin(url, response.headers.get("Location", ""))
        raise StudioError(f"{self.url} sends from one place to the next: is it Edge Impulse's?")


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in response.content.iter_chunked(65536):
        body += part
        if len(body) > MOST_BYTES:
            raise StudioError(f"{response.url.path} gives more than {MOST_BYTES} bytes, and that is no model")
    return bytes(body)


def _pause_s(attempt: int, retry_after: str | None) -> float:
    """As long as it was asked for; else longer each time."""
    asked_s = retry_after_s(retry_after)
    return random.uniform(0.5, 1) * float(2**attempt) if asked_s is None else asked_s


def _succeeded(body: bytes) -> Members:
    try:
        members = json.loads(body)
        succeeded = members["success"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StudioError(f"this is no answer of Edge Impulse: {_said(body)}") from None
    if succeeded is not True:
        raise StudioError(f"Edge Impulse refused: {_said(body)}")
    return dict(members)


def _said(body: bytes) -> str:
    """What an answer says, in a line."""
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body[:200].decode("utf-8", "replace")
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:200] or "nothing"


def _advice(status: int) -> str:
    if status in (401, 403):
        return "; set EDGE_IMPULSE_API_KEY to a key of this project (Studio: Dashboard, Keys)"
    if status == 404:
        return "; is --project the number in Studio's address bar?"
    return ""


# --- what an impulse is made of ---------------------------------------------------------------------------------------


async def _project(studio: Studio, number: int | None) -> Members:
    if number is not None:
        return dict((await studio.get(f"/api/{number}"))["project"])
    found = (await studio.get("/api/projects"))["projects"]
    if len(found) != 1:
        names = ", ".join(f"{one['id']} ({one['name']})" for one in found) or "none"
        raise StudioError(f"the API key opens more or less than one project: {names}; choose with --project")
    return dict(found[0])


async def _impulse(studio: Studio, project: Members) -> Impulse:
    number = int(project["id"])
    layout = (await studio.get(f"/api/{number}/impulse")).get("impulse")
    if not layout:
        raise StudioError(f"project {number} has no impulse: create and train one in Studio")
    entry = _checked(layout)
    learning = {learn["type"]: learn for learn in layout["learnBlocks"]}
    wanted = {dsp for learn in learning.values() for dsp in learn["dsp"]}
    blocks, rates = [], []
    for dsp in layout["dspBlocks"]:
        if dsp["id"] in wanted:
            made, rate_hz = await _dsp(studio, number, dsp)
            blocks.append(made)
            rates.append(rate_hz)
    rate_hz = float(entry.get("frequencyHz") or (rates or [0])[0] or 0)
    if rate_hz <= 0:
        raise StudioError(f"project {number} does not say at which rate it samples: generate its features again")
    classifier, anomaly, version = None, None, ""
    if "anomaly" in learning:
        anomaly, version = await _kmeans(studio, number, learning["anomaly"])
    if "keras" in learning:
        classifier, version = await _classifier(studio, number, learning["keras"])
    name = str(project["name"])
    return Impulse(
        name=name,
        source=f"Edge Impulse project {number} ({name}), impulse {layout['id']}, {version}",
        samples=round(float(entry["windowSizeMs"]) * rate_hz / 1000),
        interval_s=1 / rate_hz,
        blocks=tuple(blocks),
        classifier=classifier,
        anomaly=anomaly,
    )


def _checked(layout: Members) -> Members:
    """The input block of an impulse of which each part is implemented."""
    entries = layout["inputBlocks"]
    if len(entries) != 1 or entries[0]["type"] != "time-series":
        given = ", ".join(str(entry["type"]) for entry in entries) or "nothing"
        raise StudioError(f"the impulse takes {given} in; one time-series is implemented")
    if added := layout.get("postProcessingBlocks"):
        names = ", ".join(str(one["type"]) for one in added)
        raise StudioError(f"the impulse has post-processing ({names}), which is not implemented: remove it in Studio")
    kinds = [str(learn["type"]) for learn in layout["learnBlocks"]]
    for kind in kinds:
        if kind not in ("keras", "anomaly"):
            raise StudioError(
                f"the impulse has a learning block of the kind {kind}, which is not implemented "
                "(keras, which is Classification, and anomaly, which is Anomaly Detection (K-means), are)"
            )
    if len(set(kinds)) != len(kinds):
        raise StudioError(f"the impulse has several learning blocks of one kind ({', '.join(kinds)}): keep one of each")
    return dict(entries[0])


async def _dsp(studio: Studio, project: int, dsp: Members) -> tuple[Dsp, float]:
    """The block with the parameters that its features were made with, and the rate they were made at."""
    number = int(dsp["id"])
    config = await studio.get(f"/api/{project}/dsp/{number}")
    made = await studio.get(f"/api/{project}/dsp/{number}/metadata")
    if not made.get("generated", True):
        raise StudioError(f"block {number} has made no features yet: generate them and train in Studio")
    if config["dsp"].get("normalizeData", "none") != "none":
        raise StudioError(
            f"block {number} has its features normalised ({config['dsp']['normalizeData']}), which is not implemented: "
            "switch data normalization off in Studio, and train again"
        )
    items = [item for group in config.get("config") or () for item in group["items"]]
    parameters = {str(one["param"]): one["defaultValue"] if one.get("value") is None else one["value"] for one in items}
    parameters |= {name: value for name, value in made.get("dspConfig", {}).items() if name in parameters}
    version, axes = int(dsp["implementationVersion"]), tuple(map(str, dsp["axes"]))
    features = made.get("featureCount")
    return (
        Dsp(number, str(dsp["type"]), version, axes, parameters, None if features is None else int(features)),
        float(made.get("frequency") or 0),
    )


async def _classifier(studio: Studio, project: int, learn: Members) -> tuple[Classifier, str]:
    """The net, and which version of the project it is."""
    metadata = await studio.get(f"/api/{project}/training/keras/{learn['id']}/metadata")
    if metadata.get("mode", "classification") != "classification":
        raise StudioError(f"the net does {metadata['mode']}; classification is implemented")
    if not metadata.get("hasTrainedModel", True):
        raise StudioError("the classifier is not trained: train it in Studio")
    link = _download((await studio.get(f"/api/{project}/downloads"))["downloads"], int(learn["id"]))
    if link:
        net, version = await studio.content(link), await _version(studio, project, metadata)
    else:
        net, version = await _built(studio, project)
    classes = tuple(map(str, metadata["classNames"]))
    threshold = _threshold(metadata, CLASS_THRESHOLD)
    return Classifier(tuple(map(int, learn["dsp"])), classes, tflite.read(net), threshold), version


def _download(downloads: Sequence[Members], learn: int) -> str:
    """Where the float32 .tflite file of the block is, or the int8 one; "" when neither is offered."""
    offered = [one for one in downloads if "tensorflow lite" in f"{one['type']} {one['name']}".lower()]
    own = [one for one in offered if f"/learn-data/{learn}/" in str(one["link"])]
    for kind in ("float32", "int8"):
        for one in own or offered:
            if kind in f"{one['type']} {one['name']}".lower():
                return str(one["link"])
    return ""


async def _built(studio: Studio, project: int) -> tuple[bytes, str]:
    """The .tflite file of a deployment that is built for this, and its version."""
    options = {"engine": "tflite", "modelType": "float32"}
    job = await studio.post(f"/api/{project}/jobs/build-ondevice-model?type=zip", options)
    waited_s = 0.0
    while True:
        state = (await studio.get(f"/api/{project}/jobs/{int(job['id'])}/status"))["job"]
        if state.get("finished"):
            break
        if waited_s >= JOB_TIMEOUT_S:
            raise StudioError(
                f"job {job['id']} is not done after {JOB_TIMEOUT_S:.0f} s: see Studio, and try again later"
            )
        await studio.sleep(JOB_INTERVAL_S)
        waited_s += JOB_INTERVAL_S
    if state.get("finishedSuccessful") is not True:
        raise StudioError(f"Edge Impulse could not build the net (job {job['id']}): its log in Studio says why")
    version = int(job["deploymentVersion"])
    body = await studio.content(f"/api/{project}/deployment/history/{version}/download")
    return deployment.net_of(body), f"deployment {version}"


async def _version(studio: Studio, project: int, metadata: Members) -> str:
    """The last deployment, which Studio keeps as long as the impulse has not changed; else when it was trained."""
    last = await studio.get(f"/api/{project}/deployment/last")
    if last.get("hasBuild") and last.get("lastBuild"):
        return f"deployment {int(last['lastBuild']['version'])}"
    return f"trained {str(metadata.get('created', 'at some time'))[:19]}"


async def _kmeans(studio: Studio, project: int, learn: Members) -> tuple[KMeans, str]:
    metadata = await studio.get(f"/api/{project}/training/anomaly/{learn['id']}/metadata")
    clusters = metadata["clusters"]
    made = KMeans(
        dsp=tuple(map(int, learn["dsp"])),
        axes=tuple(map(int, metadata["axes"])),
        mean=[float(value) for value in metadata["mean"]],
        scale=[float(value) for value in metadata["scale"]],
        centers=[[float(value) for value in one["center"]] for one in clusters],
        reach=[float(one["maxError"]) for one in clusters],
        threshold=_threshold(metadata, float(metadata.get("defaultMinimumConfidenceRating") or ANOMALY_THRESHOLD)),
    )
    return made, await _version(studio, project, metadata)


def _threshold(metadata: Members, default: float) -> float:
    """The block's one score threshold; its key is `min_score` or `min_anomaly_score` where Edge Impulse shows it."""
    found = {
        str(one["key"]): float(one["value"])
        for one in metadata.get("thresholds") or ()
        if isinstance(one["value"], int | float) and not isinstance(one["value"], bool)
    }
    scores = [value for name, value in found.items() if len(found) == 1 or _SCORE.search(name)]
    return scores[0] if scores else default
