"""The Notecard's web requests: web.get, web.post, web.put, web.delete, and uploads in fragments.

A fragment (`offset`, `total`, its own MD5 as `status`) is kept until all are there, in order, under their route and
name; then there is one HTTP request. What the real card answers for a fragment in between is assumed: result 200.
"""

import base64
import binascii
import json
from typing import TYPE_CHECKING

from judder.emulator.binary_store import cobs_encode, md5
from judder.emulator.link import WebRequest, WebResponse
from judder.emulator.notecard_request import CardError, Fields, encode
from judder.emulator.notecard_vocabulary import Handler, answers

if TYPE_CHECKING:
    from judder.emulator.notecard import Notecard

RESPONSE_LIMIT = 8192  # bytes of a web reply
SECONDS = 90
UPLOAD_LIMIT = 16 * 1024 * 1024
_MEMBERS: dict[str, type] = {
    "route": str,
    "name": str,
    "content": str,
    "binary": bool,
    "payload": str,
    "body": dict,
    "status": str,
    "verify": bool,
    "offset": int,
    "total": int,
    "max": int,
    "seconds": int,
    "label": str,
}


def _web(method: str) -> Handler:
    def handler(card: "Notecard", fields: Fields) -> Fields:
        if not card.online():
            raise CardError("web operations require being online (hub.set) {hub-not-connected}")
        seconds = fields.get("seconds", SECONDS)
        if seconds < 1:
            raise CardError("seconds: must be at least 1")
        limit = fields.get("max", RESPONSE_LIMIT)
        if not 1 <= limit <= RESPONSE_LIMIT:
            raise CardError(f"max: must be 1 to {RESPONSE_LIMIT}")
        request = _request(card, method, fields)
        if request is None:
            return {"result": 200}  # more fragments are to come
        response = card.exchange(request, seconds * 1_000_000_000)
        if method == "GET" and fields.get("binary"):
            return _into_store(card, response)
        return _web_reply(response, limit)

    return handler


for _method in ("GET", "POST", "PUT", "DELETE"):
    answers(f"web.{_method.lower()}", "route", **_MEMBERS)(_web(_method))


def _request(card: "Notecard", method: str, fields: Fields) -> WebRequest | None:
    """What is to be sent; None while fragments of it are missing."""
    body = b"" if method in ("GET", "DELETE") else _web_body(card, fields)
    if "status" in fields and fields["status"].lower() != md5(body):
        raise CardError("status: is not the MD5 of what is to be sent {web-payload}")
    content, label = fields.get("content", "application/json"), fields.get("label", "")
    for name, text in (("content", content), ("label", label)):
        if not (text.isascii() and text.isprintable()):
            raise CardError(f"{name}: must be printable ASCII")
    if fields.get("total") or fields.get("offset"):
        whole = _joined(card, fields, body)
        if whole is None:
            return None
        body = whole
    return WebRequest(method, fields["route"], fields.get("name", ""), content, body, label)


def _joined(card: "Notecard", fields: Fields, body: bytes) -> bytes | None:
    """Add a fragment; the whole when it is the last. A fragment at 0 starts anew."""
    offset, total = fields.get("offset", 0), fields.get("total", 0)
    key = fields["route"], fields.get("name", "")
    held = card.fragments.get(key, b"") if offset else b""
    if not 0 < total <= UPLOAD_LIMIT:
        raise CardError(f"total: must be 1 to {UPLOAD_LIMIT} when there is an offset")
    if offset != len(held):
        raise CardError(f"offset: {offset} is not where the {len(held)} bytes so far end")
    held += body
    if len(held) > total:
        raise CardError(f"total: {len(held)} bytes are more than {total}")
    card.fragments.pop(key, None)
    if len(held) == total:
        return held
    card.fragments[key] = held
    return None


def _into_store(card: "Notecard", response: WebResponse) -> Fields:
    """A binary reply goes where card.binary.get finds it."""
    if len(response.body) > card.store.maximum:
        raise CardError(f"response exceeds {card.store.maximum} bytes {{too-big}}")
    card.store.clear()
    card.store.data = response.body
    encoded = len(cobs_encode(response.body)) if response.body else 0
    return {"result": response.status, "length": len(response.body), "cobs": encoded}


def _web_body(card: "Notecard", fields: Fields) -> bytes:
    given = [name for name in ("binary", "payload", "body") if fields.get(name)]
    if len(given) > 1:
        raise CardError(f"{given[1]}: cannot go together with {given[0]}")
    if given == ["binary"]:
        if not card.store.checked():
            raise CardError("binary: nothing is held {web-payload}")
        return card.store.data
    if given == ["payload"]:
        try:
            return base64.b64decode(fields["payload"], validate=True)
        except (binascii.Error, ValueError):
            raise CardError("payload: must be base64 {web-payload}") from None
    return encode(fields["body"]) if "body" in fields else b""


def _web_reply(response: WebResponse, limit: int) -> Fields:
    """A response as the card tells it: JSON in `body`, anything else in `payload`."""
    if len(response.body) > limit:
        raise CardError(f"response exceeds {limit} bytes {{too-big}}")
    reply: Fields = {"result": response.status}
    body = _json_object(response.body)
    if body is not None:
        reply["body"] = body
    elif response.body:
        reply["payload"] = base64.b64encode(response.body).decode()
        reply["status"] = md5(response.body)
    return reply


def _json_object(text: bytes) -> Fields | None:
    try:
        value = json.loads(text)
        encode(value)  # refuses NaN and its like
    except (ValueError, RecursionError, CardError):
        return None
    return value if isinstance(value, dict) else None
