"""The emulated ingestion service, as real clients see it."""

import hashlib
import hmac
import http.client
import json
import os
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request

import pytest

from judder.background import background
from judder.emulator import edge_impulse
from judder.emulator.edge_impulse import EdgeImpulse, Mode

HMAC = "0123456789abcdef0123456789abcdef"
DOCUMENT = {
    "protected": {"ver": "v1", "alg": "HS256"},
    "signature": "0" * 64,
    "payload": {
        "device_type": "T",
        "interval_ms": 10,
        "sensors": [{"name": "accX", "units": "m/s2"}],
        "values": [[1.5], [2.5]],
    },
}


@pytest.fixture
def service():
    with background(lambda: edge_impulse.running(EdgeImpulse(api_key="k", hmac_key=HMAC))) as running:
        yield running


def signed(document, separators=(",", ":"), key=HMAC):
    body = json.dumps(document, separators=separators).encode()
    return body.replace(b"0" * 64, hmac.new(key.encode(), body, hashlib.sha256).hexdigest().encode())


def post(service, path, body, **headers):
    headers = {"x-api-key": "k", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(f"{service.url}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def files(*contents, part_type="application/json"):
    body = b""
    for name, content in contents:
        disposition = f'Content-Disposition: form-data; name="data"; filename="{name}"'
        body += f"--b\r\n{disposition}\r\nContent-Type: {part_type}\r\n\r\n".encode() + content + b"\r\n"
    return body + b"--b--\r\n"


MULTIPART = {"Content_Type": "multipart/form-data; boundary=b"}


def test_data_answers_with_a_name_in_text(service):
    status, text = post(service, "/api/training/data", signed(DOCUMENT), x_file_name="idle.1", x_label="L%C3%A4uft")
    assert (status, text) == (200, "idle.1")
    assert service.accepted[0].label == "Läuft"
    assert post(service, "/api/training/data", signed(DOCUMENT))[0] == 421


def test_without_a_label_it_is_taken_from_the_name(service):
    post(service, "/api/testing/data", signed(DOCUMENT), x_file_name="idle.01.json")
    assert (service.accepted[0].label, service.accepted[0].category) == ("idle", "testing")


@pytest.mark.parametrize("part_type", ["application/json", "multipart/form-data", "text/plain"])
def test_files_answers_for_each_file(service, part_type):
    other = DOCUMENT | {"payload": DOCUMENT["payload"] | {"interval_ms": 20}}
    body = files(("a.json", signed(DOCUMENT)), ("b.json", b"{}"), ("c.json", signed(other)), part_type=part_type)
    status, text = post(service, "/api/training/files", body, **MULTIPART)
    answer = json.loads(text)
    assert status == 200
    assert answer["success"] is False
    assert [one["success"] for one in answer["files"]] == [True, False, True]
    assert [sample.body for sample in service.accepted] == [signed(DOCUMENT), signed(other)]


def test_a_repeat_is_refused_only_if_asked_for(service):
    body = files(("a.json", signed(DOCUMENT)))
    post(service, "/api/training/files", body, **MULTIPART)
    _, text = post(service, "/api/training/files", body, x_disallow_duplicates="1", **MULTIPART)
    assert "already exists" in json.loads(text)["files"][0]["error"]
    assert (service.repeats, service.doubled) == (1, 0)
    post(service, "/api/training/files", body, **MULTIPART)
    assert service.doubled == 1


def test_signatures_are_checked_over_the_bytes_of_json_and_cbor(service):
    def answer(body):
        return json.loads(post(service, "/api/training/files", files(("a", body)), **MULTIPART)[1])["success"]

    assert answer(signed(DOCUMENT, separators=(", ", ": ")))
    assert not answer(signed(DOCUMENT, key="wrong"))
    assert not answer(signed(DOCUMENT).replace(b"1.5", b"1.6"))
    unsigned = json.loads(json.dumps(DOCUMENT))
    unsigned["protected"]["alg"] = "none"
    assert answer(json.dumps(unsigned).encode())
    cbor = b"\xa3iprotected\xa2cverbv1calgeHS256isignature\x78\x40" + b"0" * 64 + b"gpayload\xa0"
    right = hmac.new(HMAC.encode(), cbor, hashlib.sha256).hexdigest().encode()
    assert answer(cbor.replace(b"0" * 64, right))
    assert not answer(cbor.replace(b"0" * 64, right[::-1]))


@pytest.mark.parametrize(
    "change",
    [
        {"interval_ms": 0},
        {"interval_ms": "x"},
        {"values": []},
        {"values": [[1, 2]]},
        {"sensors": []},
        {"device_type": ""},
    ],
)
def test_a_document_that_says_nonsense_is_refused(service, change):
    document = DOCUMENT | {"payload": DOCUMENT["payload"] | change}
    _, text = post(service, "/api/training/files", files(("a.json", signed(document))), **MULTIPART)
    assert json.loads(text)["files"][0]["success"] is False


def test_wrong_key_category_and_body(service):
    assert post(service, "/api/training/files", b"", x_api_key="wrong")[0] == 401
    assert post(service, "/api/elsewhere/files", b"")[0] == 404
    assert post(service, "/api/training/files", b"junk", **MULTIPART)[0] == 400
    assert post(service, "/api/training/files", b"junk", Content_Type="text/plain")[0] == 400


def test_split_divides_by_content(service):
    for i in range(60):
        document = DOCUMENT | {"payload": DOCUMENT["payload"] | {"interval_ms": 1 + i}}
        post(service, "/api/split/data", signed(document), x_file_name=f"a.{i}")
    assert 4 <= sum(sample.category == "testing" for sample in service.accepted) <= 24


def test_modes(service):
    body = files(("a.json", signed(DOCUMENT)))
    service.mode = Mode("status", 503, retry_after_s=7)
    assert post(service, "/api/training/files", body, **MULTIPART)[0] == 503
    service.mode = Mode("reset")
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        post(service, "/api/training/files", body, **MULTIPART)
    service.mode = Mode("file", 1)
    assert json.loads(post(service, "/api/training/files", body, **MULTIPART)[1])["success"] is False
    service.mode = Mode("rate", 2)
    statuses = [post(service, "/api/training/files", body, **MULTIPART)[0] for _ in range(6)]
    assert {200, 429} == set(statuses)


@pytest.mark.parametrize("text", ["fast", "slow", "slow:x", "ok:1", "status:"])
def test_a_mode_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="mode"):
        Mode.parse(text)
    assert Mode.parse("slow:2") == Mode("slow", 2)


@pytest.mark.slow
def test_the_client_from_pypi_uploads_to_it(service):
    """edgeimpulse.experimental.data, unmodified; it signs nothing and types its parts multipart/form-data."""
    pytest.importorskip("edgeimpulse")
    code = """
        import io
        import edgeimpulse as ei
        from edgeimpulse.experimental.data import Sample, upload_samples
        ei.API_KEY = "k"
        document = open(0).read()
        response = upload_samples([
            Sample(filename=f"run.{i}.json", data=io.BytesIO(document.replace("ms\\":10", f"ms\\":1{i}").encode()),
                   category="training", label="run")
            for i in range(3)
        ])
        print(len(response.successes), len(response.fails))
    """
    unsigned = json.loads(json.dumps(DOCUMENT))
    unsigned["protected"]["alg"] = "none"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        input=json.dumps(unsigned, separators=(",", ":")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"EI_INGESTION_ENDPOINT": service.url, "EI_API_KEY": "k"},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[-2:] == ["3", "0"]
    assert sorted(sample.name for sample in service.accepted) == ["run.0.json", "run.1.json", "run.2.json"]
    assert {sample.label for sample in service.accepted} == {"run"}
