import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.state import get_log, list_actors
from ray.util.state.exception import RayStateApiException

from lmray.dataset import build, open_splits
from lmray.distributed import gauges
from lmray.distributed.data import run_tasks
from lmray.distributed.gauges import count_shard
from lmray.distributed.watching import title, watched
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from tests.distributed.exported import Sample, endless, exported, prometheus, wait_for
from tests.small import small_run, write_corpus, write_tokenizer

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "scripts" / "grafana_dashboard.json").read_text())


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_the_panels_ask_for_every_gauge_there_is_and_for_no_other():
    ours = {measure.exported for measure in gauges.MEASURES}
    asked = set(re.findall(r"\w+_\w+(?=[{\[ )])", " ".join(queries())))
    assert {name for name in asked if not name.startswith("ray_")} == set()
    assert {name for name in asked if name.startswith("ray_lmray_")} == ours
    for variable in DASHBOARD["templating"]["list"]:
        assert set(re.findall(r"ray_\w+", variable.get("definition", ""))) <= ours


def test_every_panel_has_a_unit_and_a_legend_and_none_covers_another():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_the_page_on_monitoring_has_every_gauge_with_its_unit_and_labels():
    page = (ROOT / "docs" / "monitoring.md").read_text()
    for measure in gauges.MEASURES:
        labels = ", ".join(measure.labels)
        assert f"| `{measure.exported}` | {measure.unit} | {labels} |" in page


def test_a_runs_log_has_a_line_for_its_begin_each_evaluation_and_its_end(
    small_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = small_run(small_dataset)
    passed: list[dict[str, Any]] = []
    with watched(run, passed.append, sweep="", trial="lr=0.01 batch_size=4") as report:
        directory = execute(run, open_splits(small_dataset), tmp_path, report=report)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("lr=0.01 batch_size=4: ") for line in lines)
    evaluations = directory.records("validation")
    assert len(lines) == 2 + len(evaluations)
    for line, record in zip(lines[1:-1], evaluations, strict=True):
        assert f"{record['tokens']:,} tokens: validation loss {record['loss']:.4f}" in line
    assert [each for each in passed if each["kind"] == "validation"] == evaluations
    assert not [each for each in threading.enumerate() if each.name == "lmray-gauges"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_running_trials_gauges_are_its_last_records_and_go_when_it_ends(
    small_dataset: Path, tmp_path: Path
):
    with endless(small_dataset, tmp_path, "watched", named=False) as trial:
        records = tmp_path / "runs" / trial.id
        found: list[Sample] = []

        def shown() -> bool:
            found[:] = exported("watched")
            return {"ray_lmray_train_loss", "ray_lmray_bits_per_byte", "ray_lmray_trials"} <= {
                name for name, _, _ in found
            }

        wait_for(shown, "the gauges of a running trial are not exported")
    values = {(name, labels["trial"]): value for name, labels, value in found if "trial" in labels}
    name = f"lr=0.001 batch_size=4 seed=0 {trial.id}"
    train = RunDirectory(records).records("train")
    for key, measure in gauges.OF_TRAIN.items():
        if key != "mfu":  # a CPU has none
            assert values[measure.exported, name] in [record[key] for record in train]
    validation = RunDirectory(records).records("validation")
    for key, measure in gauges.OF_VALIDATION.items():
        assert values[measure.exported, name] in [record[key] for record in validation]
    stands = {
        labels["status"]: value for what, labels, value in found if what == "ray_lmray_trials"
    }
    assert sum(stands.values()) == 1
    wait_for(
        lambda: {name for name, _, _ in exported("watched")} == {"ray_lmray_tokens_trained_total"},
        "gauges of a trial that has ended are still there",
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.skipif(not shutil.which("prometheus"), reason="Debian's package prometheus is missing")
def test_a_prometheus_with_our_file_answers_every_panel(small_dataset: Path, tmp_path: Path):
    run, splits = small_run(small_dataset), open_splits(small_dataset)
    with (
        watched(run, lambda record: None, sweep="scraped", trial="one") as report,
        prometheus(tmp_path) as query,
    ):
        directory = execute(run, splits, tmp_path / "runs", report=report)
        for row in splits.train.manifest.shards:
            count_shard(row, dataset="scraped", split="train")
        last = directory.records("train")[-1]
        expected = {
            'ray_lmray_train_loss{sweep="scraped", trial="one"}': last["loss"],
            'ray_lmray_tokens{sweep="scraped", trial="one"}': last["tokens"],
            'sum(ray_lmray_tokens_trained_total{sweep="scraped"})': run.training_tokens,
            'ray_lmray_validation_loss{sweep="scraped", trial="one", scope="all"}': (
                directory.final_validation()["loss"]
            ),
            'sum(ray_lmray_tokens_encoded_total{dataset="scraped"})': len(splits.train),
        }
        wait_for(lambda: all(map(query, expected)), "Prometheus has not got the gauges")
        for asked, value in expected.items():
            assert [float(each["value"][1]) for each in query(asked)] == [value], asked
        absent = []
        for asked in queries():
            filled = asked.replace("$__rate_interval", "1m")
            filled = filled.replace("$sweep", ".*").replace("$trial", ".*")
            if not query(filled):  # which raises for one that cannot be read
                absent.append(asked)
        # One value of a counter has no rate yet, a CPU no MFU, no sweep is run; Ray's are its own.
        for asked in absent:
            assert re.search(r"rate\(|mfu|trials|ray_(?!lmray)", asked), asked


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.skipif(not shutil.which("prometheus"), reason="Debian's package prometheus is missing")
def test_a_prometheus_and_rays_state_know_the_trials_of_a_running_sweep_by_name(
    small_dataset: Path, tmp_path: Path
):
    with (
        prometheus(tmp_path) as query,
        endless(small_dataset, tmp_path, "named", named=True) as trial,
    ):
        name = title(trial)
        loss = f'ray_lmray_train_loss{{sweep="named", trial="{name}"}}'
        wait_for(lambda: bool(query(loss)), "Prometheus has not got the trial's loss")
        asked = 'ray_lmray_trials{sweep="named", status="running"}'
        wait_for(lambda: bool(query(asked)), "Prometheus has not got the sweep's trials")
        assert [float(each["value"][1]) for each in query(asked)] == [1]
        cluster = ray.get_runtime_context().gcs_address
        alive = [("state", "=", "ALIVE")]
        actors = list_actors(cluster, filters=alive, detail=True, limit=1000)
        [actor] = [each for each in actors if each.repr_name == name]

        def shown() -> bool:
            try:
                return f"{name}: " in "".join(get_log(cluster, actor_id=actor.actor_id, timeout=60))
            except RayStateApiException:  # the dashboard does not know the node's agent yet
                return False

        wait_for(shown, "Ray's State API has not got the trial's lines")
        [found] = query(loss)
    records = RunDirectory(tmp_path / "runs" / trial.id).records("train")
    assert float(found["value"][1]) in [record["loss"] for record in records]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_every_shard_of_a_build_is_counted_also_of_a_split_that_has_one(tmp_path: Path):
    corpus = write_corpus(tmp_path)
    tokenizer = write_tokenizer(corpus, tmp_path / "tokenizer.json")
    size = corpus.valid[0].stat().st_size
    assert size < corpus.train[0].stat().st_size // 2
    build(corpus, tokenizer, tmp_path / "counted", shard_bytes=size, run_tasks=run_tasks(2))
    splits = open_splits(tmp_path / "counted")
    assert len(splits.train.manifest.shards) > 1
    assert len(splits.valid.manifest.shards) == 1
    expected = {
        (f"ray_lmray_{what}_total", name): number
        for name, split in {"train": splits.train, "valid": splits.valid}.items()
        for what, number in {
            "shards_written": len(split.manifest.shards),
            "tokens_encoded": len(split),
        }.items()
    }

    def counted() -> dict[tuple[str, str], float]:
        found = exported("counted", "dataset")
        return {(name, labels["split"]): value for name, labels, value in found}

    wait_for(lambda: len(counted()) == len(expected), "shards of a build are not counted")
    assert counted() == expected


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are read from /proc")
def test_nothing_of_a_local_ray_listens_beyond_loopback():
    mine = listening()
    assert len(mine) > 5
    # Workers of an earlier test may take a moment to end.
    wait_for(
        lambda: all(address.endswith("0100007F") for address in listening()),
        "Ray listens on other interfaces",
    )


def listening() -> list[str]:
    """Addresses, as in /proc/net/tcp, at which this process and its descendants take calls."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[stat.parent.name] = stat.read_text().rpartition(")")[2].split()[1]
    family, size = {str(os.getpid())}, 0
    while size < len(family):
        size = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    sockets = set()
    for number in family:
        for file in Path("/proc", number, "fd").glob("*"):
            with suppress(OSError):
                sockets.add(str(file.readlink()))
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    return [
        line[1].partition(":")[0]
        for line in lines
        if line[3] == "0A" and f"socket:[{line[9]}]" in sockets
    ]
