"""The Notecard's web requests: web.get, web.post, web.put, web.delete, and uploads in fragments.

A fragment (`offset`, `total`, its own MD5 as `status`) is kept until all are there, in order, under their route and
name; then there is one HTTP request. What the real card answers for a fragment in between is assumed: result 200.
With `async` the reply comes at once and the request is sent when there is a session; its response goes to the note
`note` of the Notefile `file`, if that is given. So does what is asked for offline when there is a `file`.
"""

import base64
import json
from typing import TYPE_CHECKING

from judder.emulator.notecard.binary_store import cobs_length, md5
from judder.emulator.notecard.line import CardError, Fields, decode_payload, encode
from judder.emulator.notecard.link import SECONDS, WebRequest, WebResponse
from judder.emulator.notecard.notefiles import LOCAL, check_name
from judder.emulator.notecard.vocabulary import Handler, Kind, answers

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard

RESPONSE_LIMIT = 8192  # bytes of a web reply
UPLOADS = 16  # unfinished at once; the oldest is forgotten
UPLOAD_LIMIT = 16 * 1024 * 1024
_MEMBERS: dict[str, Kind] = {
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
    "async": bool,
    "file": str,
    "note": str,
    "label": str,  # note-python:notecard/upload.py sends it, the schema does not know it
}


def _web(method: str) -> Handler:
    def handler(card: "Notecard", fields: Fields) -> Fields:
        queued = fields.get("async") or (not card.online() and "file" in fields)
        if not (card.online() or queued):
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
        if queued:
            return _queue(card, request, fields)
        response = card.exchange(request, seconds * 1_000_000_000)
        if response.status < 300:
            card.fragments.pop(_upload(fields), None)
        if method == "GET" and fields.get("binary"):
            return _into_store(card, response)
        return _web_reply(response, limit)

    return handler


for _method in ("GET", "POST", "PUT", "DELETE"):
    answers(
        f"web.{_method.lower()}",
        _MEMBERS,
        needs=["route"],
        exclusive=[("binary", "payload", "body"), ("async", "binary")],
    )(_web(_method))


def _queue(card: "Notecard", request: WebRequest, fields: Fields) -> Fields:
    file = fields.get("file", "")
    if file:
        check_name(file, (LOCAL,))
    card.send_later(request, file, fields.get("note", ""))
    return {}


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
    seconds = fields.get("seconds", SECONDS)
    return WebRequest(method, fields["route"], fields.get("name", ""), content, body, label, seconds)


def _joined(card: "Notecard", fields: Fields, body: bytes) -> bytes | None:
    """Add a fragment; the whole when it is the last. One that came before, because its reply was lost, comes anew."""
    offset, total = fields.get("offset", 0), fields.get("total", 0)
    key = _upload(fields)
    held = card.fragments.get(key, b"")
    if not 0 < total <= UPLOAD_LIMIT:
        raise CardError(f"total: must be 1 to {UPLOAD_LIMIT} when there is an offset")
    if not 0 <= offset <= len(held):
        raise CardError(f"offset: {offset} is not where the {len(held)} bytes so far end")
    held = held[:offset] + body
    if len(held) > total:
        raise CardError(f"total: {len(held)} bytes are more than {total}")
    card.fragments.pop(key, None)
    card.fragments[key] = held  # Notehub's, until it has delivered them
    while len(card.fragments) > UPLOADS:
        del card.fragments[next(iter(card.fragments))]
    return held if len(held) == total else None


def _upload(fields: Fields) -> tuple[str, str]:
    return fields["route"], fields.get("name", "")


def _into_store(card: "Notecard", response: WebResponse) -> Fields:
    """A binary reply goes where card.binary.get finds it."""
    if len(response.body) > card.store.maximum:
        raise CardError(f"response exceeds {card.store.maximum} bytes {{too-big}}")
    card.store.fill(response.body)
    encoded = cobs_length(response.body) if response.body else 0
    return {"result": response.status, "length": len(response.body), "cobs": encoded}


def _web_body(card: "Notecard", fields: Fields) -> bytes:
    if fields.get("binary"):
        if not card.store.checked():
            raise CardError("binary: nothing is held {web-payload}")
        return card.store.data
    if "payload" in fields:
        return decode_payload(fields["payload"], "{web-payload}")
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
