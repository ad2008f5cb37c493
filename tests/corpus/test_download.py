import hashlib
import json
import random
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from lmray.corpus.download import Expected, Receipt, download
from lmray.errors import CorruptionError, LmrayError, PreflightError
from tests.corpus.conftest import Hub

CONTENT = random.Random(0).randbytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def path(tmp_path: Path, hub: Hub) -> Path:
    hub.files["/a.txt"] = CONTENT
    return tmp_path / "corpora" / "a.txt"


def left_behind(path: Path) -> set[str]:
    return {entry.name for entry in path.parent.iterdir()} if path.parent.exists() else set()


def starts(hub: Hub) -> list[str]:
    return [request.get("Range", "none") for request in hub.requests]


def test_a_whole_file_with_its_receipt(hub: Hub, path: Path) -> None:
    seen = []
    receipt = download(hub.url("/a.txt"), path, progress=lambda *report: seen.append(report))
    assert path.read_bytes() == CONTENT
    assert receipt == Receipt(hub.url("/a.txt"), len(CONTENT), SHA256, "sha256")
    assert json.loads((path.parent / "a.txt.receipt.json").read_text())["sha256"] == SHA256
    assert left_behind(path) == {"a.txt", "a.txt.receipt.json"}
    assert seen[-1] == ("download", len(CONTENT), len(CONTENT), "bytes")


@pytest.mark.parametrize(
    ("expected", "verified"),
    [
        (Expected(), "nothing"),
        (Expected(bytes=len(CONTENT)), "size"),
        (Expected(sha256=SHA256), "sha256"),
    ],
)
def test_the_receipt_says_what_was_verified(
    hub: Hub, path: Path, expected: Expected, verified: str
) -> None:
    hub.linked_hash = "none"
    assert download(hub.url("/a.txt"), path, expected=expected).verified == verified


def test_cut_connections_are_taken_up_where_they_broke(hub: Hub, path: Path) -> None:
    # More cuts than retries: each brings new bytes, so the download goes on.
    hub.cuts = [100_000, 1, 300_000, 20, 20, 20, 20, 20]
    download(hub.url("/a.txt"), path)
    assert path.read_bytes() == CONTENT
    assert starts(hub)[:4] == ["none", "bytes=100000-", "bytes=100001-", "bytes=400001-"]


def test_a_later_call_goes_on_with_the_part(hub: Hub, path: Path) -> None:
    hub.cuts = [600_000, 0, 0, 0, 0, 0]
    with pytest.raises(LmrayError, match="connection lost after 600,000 of 1,000,000 bytes"):
        download(hub.url("/a.txt"), path)
    assert left_behind(path) == {"a.txt.part", "a.txt.part.json"}
    hub.requests.clear()
    download(hub.url("/a.txt"), path)
    assert path.read_bytes() == CONTENT
    assert starts(hub) == ["bytes=600000-"]


def test_a_complete_part_is_not_fetched_again(hub: Hub, path: Path) -> None:
    hub.cuts = [999_999, 0, 0, 0, 0, 0]
    with pytest.raises(LmrayError):
        download(hub.url("/a.txt"), path)
    with (path.parent / "a.txt.part").open("ab") as part:
        part.write(CONTENT[-1:])
    assert download(hub.url("/a.txt"), path).verified == "sha256"
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["content", "url", "longer part"])
def test_a_part_of_something_else_is_started_afresh(hub: Hub, path: Path, change: str) -> None:
    hub.cuts = [600_000, 0, 0, 0, 0, 0]
    with pytest.raises(LmrayError):
        download(hub.url("/a.txt"), path)
    content, name = CONTENT, "/a.txt"
    if change == "content":
        content = hub.files["/a.txt"] = CONTENT[::-1]
    elif change == "url":
        name = "/b.txt"
        content = hub.files[name] = CONTENT[::-1]
    else:
        with (path.parent / "a.txt.part").open("ab") as part:
            part.write(bytes(len(CONTENT)))
    download(hub.url(name), path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("missing", ["ranges", "etags"])
def test_a_server_that_cannot_resume_sends_all_again(hub: Hub, path: Path, missing: str) -> None:
    setattr(hub, missing, False)
    hub.cuts = [400_000]
    download(hub.url("/a.txt"), path)
    assert path.read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(hub: Hub, path: Path) -> None:
    hub.failures = [503, 429, 500]
    download(hub.url("/a.txt"), path)
    assert path.read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_again(hub: Hub, path: Path) -> None:
    with pytest.raises(LmrayError, match=r"cannot fetch .*/none\.txt \(HTTP 404 Not Found\)"):
        download(hub.url("/none.txt"), path)
    assert left_behind(path) == set()


def test_without_a_network_it_says_what_to_do(path: Path) -> None:
    with pytest.raises(LmrayError) as caught:
        download("http://127.0.0.1:9/a.txt", path)
    message = str(caught.value)
    assert "cannot fetch http://127.0.0.1:9/a.txt (no connection: " in message
    assert f"put it at {path}" in message
    assert "--corpus FILE" in message
    assert "the default corpus, which needs no network" in message
    assert "\n" not in message


def test_another_size_is_refused_before_the_download(hub: Hub, path: Path) -> None:
    with pytest.raises(CorruptionError, match="has 1,000,000 bytes, but 5 were expected"):
        download(hub.url("/a.txt"), path, expected=Expected(bytes=5))
    assert left_behind(path) == set()


@pytest.mark.parametrize("said_by", ["caller", "server"])
def test_another_hash_is_refused_and_nothing_kept(hub: Hub, path: Path, said_by: str) -> None:
    hub.linked_hash = "wrong" if said_by == "server" else "none"
    expected = Expected() if said_by == "server" else Expected(sha256="0" * 64)
    with pytest.raises(CorruptionError, match=f"has SHA-256 {SHA256}, but .* should have 0000"):
        download(hub.url("/a.txt"), path, expected=expected)
    assert left_behind(path) == set()


def test_a_file_that_is_there_is_not_fetched(hub: Hub, path: Path) -> None:
    first = download(hub.url("/a.txt"), path)
    hub.requests.clear()
    assert download(hub.url("/a.txt"), path) == first
    assert hub.requests == []
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(CorruptionError, match=r"has 999,999 bytes, but .* should have 1,000,000"):
        download(hub.url("/a.txt"), path)


def test_a_file_put_there_by_hand_is_verified_and_taken(hub: Hub, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    receipt = download(hub.url("/a.txt"), path, expected=Expected(bytes=len(CONTENT)))
    assert (receipt.sha256, receipt.verified) == (SHA256, "size")
    (path.parent / "a.txt.receipt.json").unlink()
    with pytest.raises(CorruptionError, match="should have 7; remove the file"):
        download(hub.url("/a.txt"), path, expected=Expected(bytes=7))


def test_a_full_disk_is_noticed_before_the_download(
    hub: Hub, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10, 0, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(PreflightError, match=r"needs 1,000,000 more bytes, but .* only 10 free"):
        download(hub.url("/a.txt"), path)
