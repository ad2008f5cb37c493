"""A cache that is kept equal to a URL, which is a folder here; an S3 server where moto is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmray import remote
from lmray.errors import LmrayError, UsageError
from lmray.storage import locked
from tests.fake_aws import WITHOUT, fake_aws
from tests.folder_store import use_folder

URL = "s3://bucket/out/run"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the URL has."""
    use_folder(tmp_path / "store", monkeypatch)
    monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / "a"))
    return tmp_path / "store" / "bucket" / "out" / "run"


@pytest.fixture
def here(store: Path) -> Path:
    """The cache of node a."""
    path = remote.cached(URL)
    path.mkdir(parents=True)
    return path


def elsewhere(path: Path, node: str, patch: pytest.MonkeyPatch) -> Path:
    """The same place in another node's cache."""
    patch.setenv("LMRAY_CACHE", str(path.parents[4] / node))
    return remote.cached(path)


def contents(folder: Path) -> dict[str, bytes]:
    """But for the locks beside them."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_url_has_one_place_in_each_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / "a"))
    place = remote.cached("s3://bucket/some/prefix/")
    assert place == tmp_path / "a" / "s3:" / "bucket" / "some" / "prefix"
    # As a command line hands it over.
    assert remote.cached(Path("s3://bucket/some/prefix")) == place
    assert remote.url(place / "runs") == "s3://bucket/some/prefix/runs"
    monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / "b"))
    assert remote.cached(place) == tmp_path / "b" / "s3:" / "bucket" / "some" / "prefix"


@given(st.sampled_from(["lmray-out", "/shared/out", "a/s3/b", "x:/y", "."]))
def test_a_folder_of_this_machine_is_left_alone(name: str):
    path = Path(name)
    assert remote.cached(path) == path
    assert remote.url(path) == ""
    assert remote.refresh(path) == []
    assert not remote.exists(path)
    remote.publish(path)


@pytest.mark.parametrize("name", ["hdfs://x/y", "file:///x", "https://x/y", "S3://bucket/out"])
def test_a_url_of_another_kind_is_no_folder_of_this_machine(name: str):
    for path in (name, Path(name)):
        with pytest.raises(UsageError, match=r"begins like a URL.*s3:// or gs://.*absolute path"):
            remote.cached(path)
    assert remote.cached(Path.cwd() / name) == Path.cwd() / name


def test_what_one_node_publishes_another_one_has(
    here: Path, store: Path, monkeypatch: pytest.MonkeyPatch
):
    (here / "checkpoints" / "step-1").mkdir(parents=True)
    (here / "run.json").write_text("{}")
    (here / "checkpoints" / "step-1" / "model").write_bytes(b"1" * 20_000_000)
    (here / ".lock").touch()
    remote.publish(here)
    assert contents(store).keys() == {"run.json", "checkpoints/step-1/model"}
    there = elsewhere(here, "b", monkeypatch)
    assert {path.name for path in remote.refresh(there)} == {"run.json", "model"}
    assert contents(there) == contents(store)
    assert remote.refresh(there) == []


def test_only_what_differs_is_sent_and_what_is_gone_is_deleted(
    here: Path, store: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("kept", "grown", "gone"):
        (here / name).write_text(name)
    remote.publish(here)
    (here / "gone").unlink()
    with (here / "grown").open("a") as file:
        file.write("more")
    sent: list[str] = []
    send = remote._send
    monkeypatch.setattr(remote, "_send", lambda file: (sent.append(file.name), send(file)))
    remote.publish(here)
    assert sent == ["grown"]
    assert contents(store) == {"kept": b"kept", "grown": b"grownmore"}


def test_what_vouches_for_others_comes_last_and_goes_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("a/state.json", "a/weights", "z", "manifest.json"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(name)
    changed: list[str] = []
    for name in ("_send", "_drop"):
        change = getattr(remote, name)
        monkeypatch.setattr(
            remote, name, lambda file, change=change: (changed.append(file.name), change(file))
        )
    remote.publish(here)
    assert changed == ["weights", "z", "state.json", "manifest.json"]
    changed.clear()
    remote.remove(here)
    assert changed == ["state.json", "manifest.json", "weights", "z"]
    assert not remote.exists(here)


def test_what_was_never_published_is_removed_by_a_refresh(here: Path):
    (here / "published").write_text("1")
    remote.publish(here)
    (here / "published").write_text("later")
    (here / "unpublished").write_text("2")
    remote.refresh(here)
    assert contents(here) == {"published": b"1"}


def test_the_files_of_a_process_that_writes_here_are_left_alone(here: Path):
    (here / "metrics").write_text("1")
    remote.publish(here)
    (here / "metrics").write_text("12")
    with locked(here, "busy"):
        assert remote.refresh(here) == []
        assert remote.refresh(here / "metrics") == []
        assert (here / "metrics").read_text() == "12"
    remote.refresh(here / "metrics")
    assert (here / "metrics").read_text() == "1"


def test_one_file_is_published_and_fetched_alone(here: Path, monkeypatch: pytest.MonkeyPatch):
    (here / "ledger").write_text("1")
    (here / "other").write_text("2")
    remote.publish(here / "ledger")
    assert remote.exists(here / "ledger")
    assert not remote.exists(here / "other")
    there = elsewhere(here, "b", monkeypatch)
    assert remote.refresh(there / "ledger") == [there / "ledger"]
    assert contents(there) == {"ledger": b"1"}
    assert remote.names(there.parent) == ["run"]


def test_a_store_that_cannot_be_reached_is_an_error_of_one_line(
    here: Path, store: Path, monkeypatch: pytest.MonkeyPatch
):
    (here / "file").write_text("1")
    store.parent.mkdir(parents=True)
    store.write_text("in the way")
    with pytest.raises(LmrayError, match="cannot reach s3://bucket/out/run/file: ") as caught:
        remote.publish(here)
    assert "credentials" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(bool(WITHOUT), reason=f"{WITHOUT} not installed")
def test_a_server_that_speaks_s3_is_such_a_store(tmp_path: Path):
    """In a process of its own, which Arrow's S3 is started and ended with."""
    code = """
import os, sys
from pathlib import Path
import boto3
from lmray import remote
s3 = boto3.client("s3")
region = {"LocationConstraint": "us-west-2"}
s3.create_bucket(Bucket="lmray-bucket", CreateBucketConfiguration=region)
def node(name):
    os.environ["LMRAY_CACHE"] = str(Path(sys.argv[1]) / name)
    return remote.cached("s3://lmray-bucket/out")
a = node("a")
(a / "deep" / "er").mkdir(parents=True)
(a / "deep" / "er" / "large").write_bytes(os.urandom(12_000_000))
(a / "small").write_text("1")
assert not remote.exists(a)
remote.publish(a)
assert remote.exists(a) and remote.names(a) == ["deep", "small"], remote.names(a)
b = node("b")
assert len(remote.refresh(b)) == 2 and remote.refresh(b) == []
for name in ("deep/er/large", "small"):
    assert (a / name).read_bytes() == (b / name).read_bytes()
(b / "small").write_text("22")
(b / "deep" / "er" / "large").unlink()
remote.publish(b)
remote.refresh(a)
assert (a / "small").read_text() == "22" and not (a / "deep" / "er" / "large").exists()
remote.remove(a)
assert not remote.exists(a)
"""
    with fake_aws(tmp_path) as aws:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=os.environ | aws,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
