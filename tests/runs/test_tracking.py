import struct
import time
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from lmray.config import Tracking
from lmray.dataset import open_splits
from lmray.errors import PreflightError
from lmray.runs.execute import execute
from tests.small import small_run


def offline_records(folder: Path) -> list[wandb_internal_pb2.Record]:
    """What an offline run wrote: a header, then LevelDB's log format in blocks of 32 KiB."""
    (file,) = folder.rglob("*.wandb")
    data, position, parts, records = file.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:  # a block's end too small for a header is padding
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        if position + 7 + length > len(data):  # still being written
            break
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last of its parts
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def finished_records(folder: Path) -> list[wandb_internal_pb2.Record]:
    """The records once the exit is among them: W&B's own process writes them, in its own time."""
    deadline = time.monotonic() + 60
    records = offline_records(folder)
    while not any(record.HasField("exit") for record in records):
        kinds = [record.WhichOneof("record_type") for record in records]
        assert time.monotonic() < deadline, kinds
        time.sleep(0.2)
        records = offline_records(folder)
    return records


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_offline_run_has_the_config_the_group_and_every_record(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    run = small_run(small_dataset, tracking=Tracking(wandb="offline", project="tests"))
    splits = open_splits(small_dataset)
    directory = execute(run, splits, tmp_path, report=lambda record: None, group="a-sweep")
    records = finished_records(directory.path)
    (begun,) = [r.run for r in records if r.HasField("run")]
    assert begun.run_group == "a-sweep"
    assert begun.project == "tests"
    assert begun.run_id == directory.path.name
    config = {item.key: item.value_json for item in begun.config.update}
    assert config["optim.lr"] == "0.01"
    logged = [
        {"/".join(item.nested_key) or item.key: item.value_json for item in r.history.item}
        for r in records
        if r.HasField("history")
    ]
    losses = [float(row["train/loss"]) for row in logged if "train/loss" in row]
    assert losses == [record["loss"] for record in directory.records("train")]
    validations = [
        float(row["validation/prefix/loss"]) for row in logged if "validation/prefix/loss" in row
    ]
    prefix = [r["loss"] for r in directory.records("validation") if r["scope"] == "prefix"]
    assert validations == prefix


def test_online_without_a_key_is_refused_before_anything_begins(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    run = small_run(small_dataset, tracking=Tracking(wandb="online"))
    with pytest.raises(PreflightError, match=r"wandb=online: No API key .* tracking.wandb=offline"):
        execute(run, open_splits(small_dataset), tmp_path / "runs", report=lambda record: None)
    assert not (tmp_path / "runs").exists()
