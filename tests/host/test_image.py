"""Images: built by the command as anybody would, the same bytes anywhere, and looked into when they are damaged."""

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.host.test_fat12 import complaints, extracted, needs_tools
from tests.models import drawn, spectral
from typer.testing import CliRunner

import judder as package  # `judder` is the command, below
from judder import binpack, fat12
from judder.binpack import MARKER, Part, pack, unpack
from judder.board import RING_BYTES, RING_FILE, SLOT_FOLDER, SLOTS, Tree, board_settings, tree
from judder.cli import app
from judder.deploy import firmware
from judder.fat12 import Fat12Error
from judder.image import Contents, ImageError, build, erased_files
from judder.inspection import FACTORY, FS_ONLY_WARNING
from judder.manifest import MANIFEST, manifest, revision
from judder.update import HEADER, LEAD, Kind, Update

SETTINGS = b'PRODUCT_UID = "com.example:pump"\nSAMPLES = 512\n'
HEAD_BYTES = len(LEAD) + HEADER.size
ERASED = {RING_FILE: RING_BYTES} | SLOTS


def judder(*arguments, code=0):
    ended = CliRunner().invoke(app, [*map(str, arguments)])
    assert ended.exit_code == code, ended.output
    return ended


def program(address, size=70_000, *, reset=0x1235, shared=0x11001, stack=0x200A0000):
    """Something with the vector table of a program that is linked for `address`."""
    code = bytearray(random.Random(size).randbytes(size))
    code[:444] = struct.pack("<111I", stack, address + reset, *[address + shared] * 109)
    code[shared - 1 : shared + 1] = b"\xfe\xe7"
    return bytes(code)


BOOTLOADER = program(0x08000000, 20_000, reset=0x201, shared=0x301)
BEHIND, ALONE = program(0x08010000), program(0x08000000, 71_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a user has, an image of it all, and what is no good for one."""
    found = tmp_path_factory.mktemp("image")
    (found / "boot.bin").write_bytes(BOOTLOADER)
    (found / "python.bin").write_bytes(BEHIND)
    (found / "alone.bin").write_bytes(ALONE)
    (found / "model.bin").write_bytes(drawn(blocks=[spectral(fft=16)]).to_bytes())
    (found / "settings.toml").write_bytes(SETTINGS)
    judder("image", "build", *options(found), "--out", found / "image.binpack", "--json")
    (found / "large.bin").write_bytes(program(0x08000000, 896 * 1024 + 1))
    (found / "outside.bin").write_bytes(program(0x08000000, 70_000, reset=0xA0001))
    (found / "python.uf2").write_bytes(b"UF2\n" + bytes(508))
    (found / "noise.bin").write_bytes(random.Random(1).randbytes(20_000))
    (found / "wrong.toml").write_text("SAMPLES = 64\nODR_HZ = 7\nODR = 7\n")
    (found / "named.toml").write_text('PRODUCT_UID = "a"\nDEVICE_SN = "pump-3"\n')
    (found / "secret.toml").write_text(f'FRAME_KEY = "{"0f" * 16}"\n')
    (found / "marked.toml").write_text('LABEL = "firmware::info:"\n')
    return found


def options(folder, version="2.1.0"):
    programs = ["--interpreter", folder / "python.bin", "--bootloader", folder / "boot.bin"]
    return ["--version", version, *programs, "--model", folder / "model.bin", "--settings", folder / "settings.toml"]


@pytest.fixture(scope="module")
def whole(folder):
    return unpack((folder / "image.binpack").read_bytes())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A firmware of two files."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "device").mkdir()
    (root / "device" / "main.py").write_text("print('main')\n")
    (root / "boot.py").write_text("print('boot')\n")
    return Contents("1.0.0", source=Tree(root / "device", root / "boot.py"))


@pytest.fixture(scope="module")
def drive_only(tiny):
    return unpack(build(tiny).data)


def refused(*arguments, code=2):
    ended = judder("image", *arguments, code=code)
    (line,) = ended.stderr.splitlines()
    assert line.startswith("judder: ")
    return line


def changed(found, part, **fields):
    """The pack with one part another, its lengths and MD5s right."""
    return pack(replace(found, parts=[replace(one, **fields) if one.name == part else one for one in found.parts]))


# --- what is in one ---------------------------------------------------------------------------------------------------


def test_the_parts_are_where_the_swan_has_them(whole):
    assert [(part.name, part.address) for part in whole.parts] == [
        ("bootloader", 0x08000000),
        ("interpreter", 0x08010000),
        ("filesystem", 0x08100000),
    ]
    for part, given in zip(whole.parts, (BOOTLOADER, BEHIND), strict=False):
        assert len(part.data) == -(-len(given) // 4096) * 4096
        assert part.data == given.ljust(len(part.data), b"\xff")
    drive = whole.parts[2].data
    assert len(drive) % 4096 == 0
    assert len(drive) < len(fat12.volume({})) - sum(ERASED.values()) + 4096


def test_the_drive_has_firmware_manifest_settings_model_and_erased_files(whole, folder):
    files = fat12.read(whole.parts[2].data)
    listed = firmware() | {"model.bin": (folder / "model.bin").read_bytes()}
    model_id = listed["model.bin"][-4:][::-1].hex()
    expected = manifest(listed, "2.1.0", revision(tree()), model_id)
    erased = {name: b"\xff" * size for name, size in ERASED.items()}
    slot_folder = {f"{SLOT_FOLDER}/": b""}
    assert files == {**FACTORY, **slot_folder, MANIFEST: expected, **listed, "settings.toml": SETTINGS, **erased}
    drive = whole.parts[2].data.ljust(1 << 20, b"\xff")
    starts = [fat12.locate(drive, name)[0] for name in ERASED]
    assert starts == sorted(starts)
    assert all(fat12.locate(drive, path)[0] < starts[0] for path in listed)


@needs_tools
def test_fsck_has_nothing_to_say_of_the_drive_and_mtools_reads_it(whole, tmp_path):
    drive = whole.parts[2].data
    (tmp_path / "image").write_bytes(drive.ljust(1 << 20, b"\xff"))
    assert complaints(tmp_path / "image") == []
    assert extracted(tmp_path / "image", tmp_path / "out") == fat12.read(drive)


def test_notehub_is_told_the_version_and_where_the_image_comes_from(whole, folder):
    info = json.loads(whole.info.removeprefix(MARKER))
    digests = info.pop("sha256")
    assert info.pop("revision") == revision(tree())
    assert info.pop("builder").startswith("judder ")
    model_id = (folder / "model.bin").read_bytes()[-4:][::-1].hex()
    assert info == {
        "org": "judder",
        "product": "judder",
        "description": f"vibration windows, model {model_id}",
        "version": "2.1.0",
        "built": "Jan 01 1980 00:00:00",
        "ver_major": 2,
        "ver_minor": 1,
        "ver_patch": 0,
        "model": model_id,
    }
    contents = (BOOTLOADER, BEHIND, whole.parts[2].data)
    names = ("bootloader", "interpreter", "filesystem")
    assert digests == {name: hashlib.sha256(one).hexdigest() for name, one in zip(names, contents, strict=True)}


def test_without_trimming_a_part_keeps_its_erased_end(whole):
    files = fat12.read(whole.parts[2].data)
    full = unpack(build(Contents("2.1.0", model=files["model.bin"], settings=SETTINGS), trim=False).data)
    assert len(full.parts[0].data) == 1 << 20
    assert full.parts[0].data.rstrip(b"\xff") == whole.parts[2].data.rstrip(b"\xff")


def test_a_manifest_is_short_and_in_order():
    made = manifest({"b": b"1", "a": b""}, "1.0.0", "abc", "")
    assert made == b'{"files":{"a":[0,0],"b":[1,2212294583]},"model":"","revision":"abc","version":"1.0.0"}\n'


# --- the same bytes ---------------------------------------------------------------------------------------------------


def test_the_same_inputs_give_the_same_bytes_in_any_place_zone_and_process(folder, tmp_path, whole):
    for number, zone in enumerate(("Pacific/Kiritimati", "America/St_Johns")):
        place = tmp_path / str(number)
        place.mkdir()
        shutil.copy(folder / "python.bin", place / f"other name {number}.bin")
        environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
        environment |= {"TZ": zone, "PYTHONHASHSEED": str(number), "LC_ALL": ("C", "C.UTF-8")[number]}
        environment["PYTHONPATH"] = str(Path(package.__file__).parents[1])
        arguments = [*options(folder), "--interpreter", f"other name {number}.bin", "--out", "image", "--json"]
        command = [sys.executable, "-m", "judder", "image", "build", *map(str, arguments)]
        subprocess.run(command, check=True, cwd=place, env=environment, capture_output=True)
        assert (place / "image").read_bytes() == (folder / "image.binpack").read_bytes()


def test_source_date_epoch_is_the_only_time(monkeypatch, drive_only, tiny):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1777896001")
    dated = build(tiny)
    assert dated.info["built"] == "May 04 2026 12:00:01"
    assert b"\nWHEN: 2026-05-04 12:00:01 UTC\n" in dated.data
    assert unpack(dated.data).parts == drive_only.parts
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    with pytest.raises(ImageError, match="'today', and should be seconds"):
        build(tiny)


def test_the_revision_is_the_checkout_s(tmp_path):
    checkout = tmp_path / "checkout"
    for name in ("device/node", "device/lib"):
        (checkout / name).mkdir(parents=True)
    source = Tree(checkout / "device", checkout / "boot.py")
    for name in ("device/main.py", "boot.py", ".gitignore"):
        (checkout / name).write_text("device/lib\n" * (name == ".gitignore"))
    assert revision(source) == ""

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", checkout, *who, *arguments], check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "One.")
    head = git("rev-parse", "HEAD").strip()
    assert revision(source) == head[:12]
    (checkout / "README.md").write_text("not on the board")
    (checkout / "device" / "lib" / "library.py").write_text("ignored, and pinned elsewhere")
    assert revision(source) == head[:12]
    (checkout / "device" / "node" / "new.py").write_text("")
    assert revision(source) == head[:12] + "-dirty"
    packed = checkout / "site-packages"
    shutil.copytree(source.device, packed / "device")
    assert revision(Tree(packed / "device", packed / "boot.py")) == ""


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--version", "2.1", "--interpreter", "alone.bin"], ["'2.1' is no version", "2.1.0"]),
        (["--version", "2.1.0"], ["give one of --interpreter FILE and --fs-only"]),
        (["--fs-only", "--interpreter", "python.bin"], ["give one of"]),
        (["--fs-only", "--bootloader", "boot.bin"], ["--bootloader goes with --interpreter"]),
        (["--fs-only", "--interpreter-sha256", "0" * 64], ["goes with --interpreter FILE"]),
        (["--interpreter", "none.bin"], ["none.bin: No such file"]),
        (["--interpreter", "python.bin"], ["linked for 0x08010000", "give --bootloader FILE"]),
        (
            ["--interpreter", "alone.bin", "--bootloader", "boot.bin"],
            ["linked for 0x08000000", "leave --bootloader out"],
        ),
        (["--interpreter", "boot.bin", "--bootloader", "python.bin"], ["bootloader has 70000 bytes", "65536"]),
        (["--interpreter", "large.bin"], ["has 917505 bytes", "917504"]),
        (["--interpreter", "python.uf2"], ["UF2", "give the .bin"]),
        (["--interpreter", "settings.toml"], ["not even a vector table"]),
        (["--interpreter", "noise.bin"], ["should begin, is not in RAM"]),
        (["--interpreter", "outside.bin"], ["reset vector 0x080a0001 points out of it"]),
        (
            ["--interpreter", "alone.bin", "--interpreter-sha256", "0" * 64],
            ["alone.bin: its SHA-256 is", "says otherwise"],
        ),
        (["--interpreter", "alone.bin", "--model", "python.bin"], ["python.bin: it is no model file"]),
        (
            ["--interpreter", "alone.bin", "--settings", "wrong.toml"],
            ["wrong.toml", "line 2", "ODR_HZ = 7", "(and 1 more)"],
        ),
        (["--interpreter", "alone.bin", "--settings", "named.toml"], ["named.toml: DEVICE_SN names one board"]),
        (["--interpreter", "alone.bin", "--settings", "secret.toml"], ["secret.toml: FRAME_KEY is a secret"]),
        (["--interpreter", "alone.bin", "--settings", "noise.bin"], ["is longer than|UTF-8"]),
        (["--interpreter", "alone.bin", "--settings", "marked.toml"], ["settings.toml has firmware::info: in it"]),
        (["--interpreter", "alone.bin", "--out", "nowhere/image"], ["nowhere/image: No such file"]),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_line(folder, monkeypatch, arguments, words):
    monkeypatch.chdir(folder)
    (folder / "image").write_bytes(b"the one before")
    before = sorted(folder.iterdir())
    defaults = {"--version": "2.1.0", "--out": "image"}
    more = [item for name, value in defaults.items() if name not in arguments for item in (name, value)]
    line = refused("build", *arguments, *more)
    assert all(any(word in line for word in either.split("|")) for either in words), line
    assert (folder / "image").read_bytes() == b"the one before"
    assert sorted(folder.iterdir()) == before


def test_a_file_pinned_by_its_digest_is_taken_and_the_limit_of_the_notecard_holds(folder, tmp_path):
    digest = hashlib.sha256(ALONE).hexdigest()
    arguments = ["build", "--version", "2.1.0-rc1", "--interpreter", folder / "alone.bin", "--out", tmp_path / "image"]
    ended = judder("image", *arguments, "--interpreter-sha256", digest.upper())
    assert f"interpreter  SHA-256 {digest}" in ended.stdout
    assert unpack((tmp_path / "image").read_bytes()).parts[0].data.startswith(ALONE)
    (tmp_path / "large.bin").write_bytes(program(0x08000000, 800_000))
    line = refused(*arguments[:4], tmp_path / "large.bin", *arguments[5:], "--notecard", "wifi-v2")
    assert "the Notecard takes 900000" in line


def test_the_drive_alone_is_built_with_a_warning(tmp_path):
    ended = judder("image", "build", "--version", "1.0.0", "--fs-only", "--out", tmp_path / "image", "--json")
    assert ended.stderr == f"judder: {FS_ONLY_WARNING}\n"
    made = json.loads(ended.stdout)
    assert [part["address"] for part in made["parts"]] == [0x08100000]
    assert made["sha256"] == hashlib.sha256((tmp_path / "image").read_bytes()).hexdigest()
    assert made["bytes"] == (tmp_path / "image").stat().st_size < 300_000


def test_what_does_not_fit_on_the_drive_is_refused():
    with pytest.raises(Fat12Error, match="the volume is full: the files take"):
        build(Contents("1.0.0", settings=bytes(128 * 1024)))


def test_beside_ring_and_slots_the_largest_model_that_a_slot_takes_has_room():
    room = SLOTS["model-a.bin"] - 8192 - 3584
    fat12.volume(Contents("1.0.0", settings=bytes(4096 + room)).files(), last=erased_files())


def test_a_released_interpreter_may_have_the_marker_in_it_and_no_file_of_the_drive(tiny):
    marked = ALONE[:1000] + MARKER.encode() + ALONE[1000 + len(MARKER) :]
    assert build(tiny, marked).info["version"] == "1.0.0"
    with pytest.raises(ImageError, match=r"model\.bin has firmware::info: in it"):
        build(replace(tiny, model=marked))


def test_settings_are_checked_with_the_firmware_s_own_table():
    assert board_settings().TABLE[0][0] == "PRODUCT_UID"
    assert board_settings().read("ODR_HZ = 400\n").odr_hz == 400


# --- looking into one -------------------------------------------------------------------------------------------------


def test_an_image_of_ours_is_well(folder):
    found = json.loads(judder("image", "inspect", folder / "image.binpack", "--json").stdout)
    assert found["wrong"] == found["remarks"] == []
    assert [part["name"] for part in found["parts"]] == ["bootloader", "interpreter", "filesystem"]
    assert found["info"]["version"] == found["manifest"]["version"] == "2.1.0"
    assert found["files"][RING_FILE] == RING_BYTES
    assert found["files"].keys() > found["manifest"]["files"].keys()
    shown = judder("image", "inspect", folder / "image.binpack").stdout
    assert "0x08100000" in shown
    assert "node/ring.py" in shown


def test_a_bare_drive_is_looked_into(tmp_path, whole):
    (tmp_path / "drive.img").write_bytes(whole.parts[2].data)
    found = json.loads(judder("image", "inspect", tmp_path / "drive.img", "--json").stdout)
    assert (found["kind"], found["wrong"]) == ("volume", [])
    assert found["manifest"]["version"] == "2.1.0"
    (tmp_path / "other.img").write_bytes(fat12.volume({"code.py": b"print()"}, sectors=64))
    found = json.loads(judder("image", "inspect", tmp_path / "other.img", "--json").stdout)
    assert (found["files"], found["manifest"]) == ({"code.py": 7}, None)
    assert "code.py" in judder("image", "inspect", tmp_path / "other.img").stdout


def test_an_image_of_somebody_else_is_looked_into(tmp_path, whole):
    theirs = replace(whole, host="nrf52840", parts=[Part("app.bin", 0, b"any code")], info="")
    (tmp_path / "theirs").write_bytes(pack(theirs))
    ended = judder("image", "inspect", tmp_path / "theirs")
    assert "app.bin" in ended.stdout
    assert ended.stderr == "judder: no INFO: Notehub will ask for the version\n"


def spoiled(found, path):
    """The drive with a byte of a file another."""
    drive = bytearray(found.parts[-1].data)
    drive[fat12.locate(bytes(drive), path)[0] * 512] ^= 1
    return bytes(drive)


def without(found, *names):
    """The drive made anew, without these files."""
    files = {path: data for path, data in fat12.read(found.parts[-1].data).items() if path not in names}
    return fat12.volume(files).rstrip(b"\xff")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda found: pack(found)[:-1], "its header describes"),
        (lambda found: changed(found, "filesystem", data=spoiled(found, "main.py")), "main.py has"),
        (
            lambda found: changed(found, "filesystem", data=without(found, "boot.py")),
            "boot.py is in the manifest and not",
        ),
        (lambda found: changed(found, "filesystem", data=without(found, MANIFEST)), "no manifest.json"),
        (lambda found: changed(found, "filesystem", data=without(found)), "not the one that INFO"),
        (lambda found: changed(found, "filesystem", data=bytes(8192)), "at the drive's address and is no volume"),
        (lambda found: changed(found, "filesystem", data=found.parts[-1].data[:8192]), "the drive is damaged"),
        (lambda found: pack(replace(found, info=MARKER + "{")), "INFO is not"),
        (lambda found: pack(replace(found, info=found.info.replace("1.0.0", "1.0.1"))), "'1.0.1' in INFO and '1.0.0'"),
        (
            lambda found: pack(replace(found, parts=[Part("interpreter", 0x08010000, ALONE), *found.parts])),
            "part interpreter cannot start at 0x08010000",
        ),
        (
            lambda found: pack(replace(found, parts=[Part("a", 0x080FFFFF, b"12"), *found.parts])),
            "parts a and filesystem overlap at 0x08100000",
        ),
    ],
)
def test_what_is_wrong_is_said_and_ends_with_1(tmp_path, drive_only, spoil, words):
    (tmp_path / "image").write_bytes(spoil(drive_only))
    ended = judder("image", "inspect", tmp_path / "image", "--json", code=1)
    assert any(words in line for line in json.loads(ended.stdout)["wrong"]), ended.stdout
    shown = judder("image", "inspect", tmp_path / "image", code=1).stderr
    assert any(line.startswith("judder: wrong: ") and words in line for line in shown.splitlines())


def test_what_only_looks_doubtful_is_a_remark(tmp_path, drive_only):
    parts = [Part("interpreter", 0x08010000, BEHIND), *drive_only.parts]
    (tmp_path / "image").write_bytes(pack(replace(drive_only, parts=parts)))
    found = json.loads(judder("image", "inspect", tmp_path / "image", "--json").stdout)
    assert found["remarks"] == ["the interpreter needs a bootloader, and there is none in it"]
    (tmp_path / "image").write_bytes(pack(drive_only))
    assert FS_ONLY_WARNING in judder("image", "inspect", tmp_path / "image").stderr
    files = fat12.read(drive_only.parts[0].data) | {"code.py": b"print('first')"}
    (tmp_path / "image").write_bytes(fat12.volume(files))
    assert "not in the manifest: code.py" in judder("image", "inspect", tmp_path / "image").stderr


def test_what_is_no_image_is_said_to_be_none(tmp_path, drive_only):
    (tmp_path / "text").write_text("hello\n")
    ended = judder("image", "inspect", tmp_path / "text", "--json", code=1)
    assert "neither a binpack nor a FAT volume" in json.loads(ended.stdout)["error"]
    assert ended.stderr.count("\n") == 1
    (tmp_path / "pack").write_bytes(pack(drive_only).replace(b"LOAD: filesystem", b"LOAD: filesystem,"))
    assert "has 7 fields" in refused("inspect", tmp_path / "pack", code=1)
    assert "No such file" in refused("inspect", tmp_path / "none")


def test_headers_are_read_even_of_damaged_packs(drive_only):
    assert binpack.read_header(pack(drive_only)[:-100]).loads[0].name == "filesystem"


# --- updates by file --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def update_of_code(tmp_path_factory):
    path = tmp_path_factory.mktemp("update") / "code.judder"
    judder("image", "code", "--version", "2.1.0-rc1", "--out", path)
    return path


def test_the_code_is_written_as_an_update_by_file(update_of_code, tmp_path):
    made = Update.parse(update_of_code.read_bytes())
    assert (made.kind, made.version) == (Kind.CODE, "2.1.0-rc1")
    assert "node/node.py" in fat12.read(made.content)
    ended = judder("image", "code", "--version", "2.1.0-rc1", "--out", tmp_path / "again.judder", "--json")
    assert (tmp_path / "again.judder").read_bytes() == update_of_code.read_bytes()
    told = json.loads(ended.stdout)
    assert told["sha256"] == hashlib.sha256(update_of_code.read_bytes()).hexdigest()
    assert (told["update"], told["version"]) == ("code", "2.1.0-rc1")


@pytest.mark.parametrize(
    ("version", "out", "words"),
    [
        ("2.1.0", "code.binpack", "ending .judder: give code.binpack.judder"),
        ("2.1", "code.judder", "'2.1' is no version"),
        ("11111.1.1-" + "r" * 32 + "+", "code.judder", "is no version"),
        ("11111.11111.11111-" + "r" * 32, "code.judder", "give 1 to 44 bytes"),
        ("2.1.0", "nowhere/code.judder", "nowhere/code.judder: No such file"),
    ],
)
def test_code_that_cannot_be_written_is_refused_in_a_line(tmp_path, monkeypatch, version, out, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused("code", "--version", version, "--out", out)
    assert list(tmp_path.iterdir()) == []


def test_an_update_of_code_is_looked_into(update_of_code):
    found = json.loads(judder("image", "inspect", update_of_code, "--json").stdout)
    assert (found["kind"], found["update"], found["version"], found["wrong"]) == ("update", "code", "2.1.0-rc1", [])
    assert found["bytes"] == found["content_bytes"] + HEAD_BYTES
    assert found["files"]["node/node.py"] > 10_000
    shown = judder("image", "inspect", update_of_code).stdout
    assert all(word in shown for word in ("code", "2.1.0-rc1", "node/node.py"))


def test_an_update_of_a_model_is_looked_into(folder, tmp_path):
    data = (folder / "model.bin").read_bytes()
    model_id = data[-4:][::-1].hex()
    (tmp_path / "model.judder").write_bytes(Update(Kind.MODEL, model_id, data).to_bytes())
    found = json.loads(judder("image", "inspect", tmp_path / "model.judder", "--json").stdout)
    assert (found["update"], found["version"], found["content_bytes"]) == ("model", model_id, len(data))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-1], "bytes follow the header"),
        (lambda data: data[: HEAD_BYTES - 44] + b"x" + data[HEAD_BYTES - 43 :], "the header is damaged"),
        (lambda data: data[:-1] + b"x", "the content is damaged"),
        (
            lambda data: Update(Kind.CODE, "1.0.0", data[HEAD_BYTES : HEAD_BYTES + 1000]).to_bytes(),
            "the drive is damaged",
        ),
        (lambda data: Update(Kind.MODEL, "00000000", data[HEAD_BYTES:]).to_bytes(), "its content is no model"),
        (
            lambda data: Update(Kind.MODEL, "00000000", drawn(blocks=[spectral(fft=16)]).to_bytes()).to_bytes(),
            "it says model 00000000 and has",
        ),
    ],
)
def test_a_damaged_update_is_said_to_be_one(update_of_code, tmp_path, spoil, words):
    (tmp_path / "update").write_bytes(spoil(update_of_code.read_bytes()))
    ended = judder("image", "inspect", tmp_path / "update", code=1)
    assert words in ended.stderr
