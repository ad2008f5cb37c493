import fcntl
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

from lmray.config import Optim, override, run_id
from lmray.dataset import Splits, open_splits
from lmray.errors import LmrayError, PreflightError
from lmray.generation import Sampling
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.runs.trained import continue_text, load_trained, stream_text
from tests.small import small_run


@pytest.fixture(scope="module")
def splits(small_dataset: Path) -> Splits:
    return open_splits(small_dataset)


def losses(directory: RunDirectory) -> list[tuple]:
    lines = (directory.path / "metrics.jsonl").read_text().splitlines()
    return [(r["kind"], r["step"], r["loss"]) for r in map(json.loads, lines)]


def test_a_run_leaves_its_config_provenance_status_and_metrics(splits: Splits, tmp_path: Path):
    run, begun = small_run(splits.directory), time.time()
    directory = execute(run, splits, tmp_path, report=lambda record: None)
    facts = directory.facts
    assert directory.path.name == run_id(run, splits.digest) == facts["run_id"]
    assert facts["status"] == "done"
    assert facts["step"] == 20
    assert facts["tokens"] == 1280
    assert directory.config == run
    assert facts["data"]["digest"] == splits.digest
    life = facts["lives"][0]
    assert begun < life["first_step_at"] < time.time()
    assert life["versions"]["torch"]
    assert life["hardware"]["cores"] >= 1
    assert life["ended"] >= life["started"]
    whole = directory.final_validation()
    assert whole["scope"] == "all"
    assert whole["bits_per_byte"] == pytest.approx(
        whole["loss"] / 0.6931471805599453 * whole["scored_tokens"] / _scored_bytes(splits)
    )
    assert whole["documents"] == 40
    assert whole["loss_low"] < whole["loss"] < whole["loss_high"]
    assert whole["bits_per_byte_low"] < whole["bits_per_byte"] < whole["bits_per_byte_high"]


def _scored_bytes(splits: Splits) -> int:
    ids = splits.valid.read(1, len(splits.valid))
    return int(splits.valid.token_bytes[ids].sum())


def test_a_finished_run_is_not_run_twice(splits: Splits, tmp_path: Path):
    run = small_run(splits.directory)
    first = execute(run, splits, tmp_path, report=lambda record: None)
    written = (first.path / "run.json").stat().st_mtime_ns
    seen: list[dict] = []
    again = execute(run, splits, tmp_path, report=seen.append)
    assert again.path == first.path
    assert seen == []
    assert (first.path / "run.json").stat().st_mtime_ns == written


def test_an_interrupted_runs_metrics_become_those_of_one_that_was_not(
    splits: Splits, tmp_path: Path
):
    run = small_run(splits.directory)
    whole = execute(run, splits, tmp_path / "whole", report=lambda record: None)

    class Died(Exception):
        pass

    def die(record: dict) -> None:
        if record["kind"] == "train" and record["step"] == 11:
            raise Died

    with pytest.raises(Died):
        execute(run, splits, tmp_path / "broken", report=die)
    broken = RunDirectory(tmp_path / "broken" / whole.path.name)
    assert broken.status == "failed"
    assert broken.facts["error"] == "Died: "
    assert losses(broken)[-1][1] == 11  # beyond the checkpoint of step 8: void
    execute(run, splits, tmp_path / "broken", report=lambda record: None)
    assert broken.status == "done"
    assert losses(broken) == losses(whole)
    assert [life["status"] for life in broken.facts["lives"]] == ["failed", "done"]
    failed, done = [life["first_step_at"] for life in broken.facts["lives"]]
    assert failed < done


def test_system_exit_from_the_report_means_stopped(splits: Splits, tmp_path: Path):
    def stop(record: dict) -> None:
        if record["kind"] == "validation" and record["step"] == 5:
            raise SystemExit(0)

    with pytest.raises(SystemExit):
        execute(small_run(splits.directory), splits, tmp_path, report=stop)
    (directory,) = tmp_path.iterdir()
    assert RunDirectory(directory).status == "stopped"


def test_a_diverged_run_is_final(splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lmray.training import measured

    monkeypatch.setattr(measured, "DIVERGED_AT", 0.5)
    run = small_run(splits.directory, optim=Optim(lr=0.5))
    directory = execute(run, splits, tmp_path, report=lambda record: None)
    assert directory.status == "diverged"
    monkeypatch.undo()
    assert execute(run, splits, tmp_path, report=lambda record: None).status == "diverged"
    assert len(directory.facts["lives"]) == 1


def test_two_processes_do_not_train_one_run(splits: Splits, tmp_path: Path):
    run = small_run(splits.directory)
    path = tmp_path / run_id(run, splits.digest)
    path.mkdir()
    with (path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PreflightError, match="another process is training"):
            execute(run, splits, tmp_path, report=lambda record: None)


def test_data_that_does_not_fit_leaves_nothing_behind(splits: Splits, tmp_path: Path):
    run = small_run(splits.directory)
    wrong = run.model_copy(update={"model": run.model.model_copy(update={"vocab_size": 999})})
    with pytest.raises(PreflightError, match="vocab_size=999"):
        execute(wrong, splits, tmp_path, report=lambda record: None)
    assert list(tmp_path.iterdir()) == []


def test_a_trained_model_evaluates_and_writes(splits: Splits, tmp_path: Path):
    directory = execute(small_run(splits.directory), splits, tmp_path, report=lambda record: None)
    trained = load_trained(directory)
    assert trained.step == 20
    options = {"max_new_tokens": 12, "sampling": Sampling(0.8, 0.9)}
    (written,) = continue_text(trained, "Ada", seed=3, **options)
    assert len(written.ids) <= 12
    several = continue_text(trained, "Ada", seed=2, samples=3, **options)
    assert several[1] == written
    assert len({each.text for each in several}) > 1
    assert "".join(stream_text(trained, "Ada", seed=3, **options)) == written.text
    begun = continue_text(trained, "", seed=3, **options)[0].text
    assert "".join(stream_text(trained, "", seed=3, **options)) == begun


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_a_run_of_a_gpu_is_loaded_where_there_is_none(splits: Splits, tmp_path: Path):
    directory = execute(small_run(splits.directory), splits, tmp_path, report=lambda record: None)
    facts = json.loads((directory.path / "run.json").read_text())
    facts["config"]["execution"]["device"] = "cuda"
    (directory.path / "run.json").write_text(json.dumps(facts))
    trained = load_trained(RunDirectory(directory.path))
    assert (trained.run.execution.device, trained.device.type) == ("cuda", "cpu")
    greedy = Sampling(temperature=0)
    (written,) = continue_text(trained, "Ada", max_new_tokens=3, sampling=greedy, seed=0)
    assert len(written.ids) == 3


def test_a_run_without_a_checkpoint_cannot_be_loaded(splits: Splits, tmp_path: Path):
    def stop(record: dict) -> None:
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        execute(small_run(splits.directory), splits, tmp_path, report=stop)
    (directory,) = tmp_path.iterdir()
    with pytest.raises(PreflightError, match="has no checkpoint yet"):
        load_trained(RunDirectory(directory))


def test_other_data_at_the_same_place_is_noticed(splits: Splits, tmp_path: Path):
    directory = execute(small_run(splits.directory), splits, tmp_path, report=lambda record: None)
    facts = directory.facts
    facts["data"]["digest"] = "0" * 64
    (directory.path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(PreflightError, match="is not the data that"):
        load_trained(directory)


def test_a_checkpoint_of_another_config_is_refused_by_its_keys(splits: Splits, tmp_path: Path):
    run = small_run(splits.directory)
    one = execute(run, splits, tmp_path, report=lambda record: None)
    changes = {"optim.lr": 3e-3, "model.d_model": 32, "data.batch_size": 2, "execution.threads": 2}
    other = RunDirectory(tmp_path / run_id(override(run, changes), splits.digest))
    shutil.copytree(one.checkpoints, other.checkpoints)
    with pytest.raises(PreflightError) as caught:
        execute(override(run, changes), splits, tmp_path, report=lambda record: None)
    message = str(caught.value)
    for differing in ("optim.lr is 0.01 there and 0.003", "model.d_model is 16 there and 32"):
        assert f"{differing} here" in message
    assert "data.batch_size is 4 there and 2 here" in message
    assert "use that run's config, or another run directory" in message
    assert "threads" not in message
    assert "\n" not in message
    assert other.facts["error"] == f"PreflightError: {message}"


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to grow a file past `size` bytes, as it does when the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_fails_the_run_in_one_line_and_leaves_the_checkpoints_before(
    splits: Splits, tmp_path: Path
):
    run = small_run(splits.directory)
    whole = execute(run, splits, tmp_path / "whole", report=lambda record: None)
    runs = tmp_path / "full"
    path = runs / whole.path.name
    with ExitStack() as full:

        def fill(record: dict) -> None:
            if record["kind"] == "train" and record["step"] == 10:
                wait_for(path / "checkpoints" / "step-00000008")
                full.enter_context(files_of_at_most(20_000))

        with pytest.raises(LmrayError, match=r"cannot write checkpoint .*step-00000012: .*free"):
            execute(run, splits, runs, report=fill)
    directory = RunDirectory(path)
    assert directory.status == "failed"
    assert "LmrayError: cannot write checkpoint" in directory.facts["error"]
    assert "\n" not in directory.facts["error"]
    assert [p.name for p in sorted(directory.checkpoints.iterdir())] == [
        "step-00000004",
        "step-00000008",
    ]
    assert load_trained(directory).step == 8
    # With room again the same call goes on.
    execute(run, splits, runs, report=lambda record: None)
    assert losses(directory) == losses(whole)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_best_a_step_or_the_latest_checkpoint_is_loaded(splits: Splits, tmp_path: Path):
    run = override(small_run(splits.directory), {"execution.keep_checkpoints": 9})
    best = override(run, {"execution.keep_best": True, "execution.checkpoint_interval_steps": 9})
    directory = execute(best, splits, tmp_path, report=lambda record: None)
    assert load_trained(directory).step == 20
    assert load_trained(directory, "best").step == 20
    assert load_trained(directory, "9").step == 9
    assert load_trained(directory, "15").step == 15  # the best of its time
    with pytest.raises(PreflightError, match="no checkpoint of step 8; there are 20, 18, 15"):
        load_trained(directory, "8")


COMMAND = [sys.executable, "-m", "lmray", "train", "--config"]


def _train_command(tokens: Path, root: Path) -> list[str]:
    changes = [
        f"data.tokens={tokens}",
        "model.vocab_size=300",
        "model.context_length=16",
        "model.num_layers=1",
        "model.d_model=16",
        "model.num_heads=2",
        "data.batch_size=4",
        "budget.tokens=19200",
        "evaluation.interval_tokens=3200",
        "evaluation.prefix_tokens=256",
        "execution.device=cpu",
        "execution.threads=1",
        "execution.checkpoint_interval_steps=7",
        "execution.log_interval_steps=1",
    ]
    return [*COMMAND, "tiny", *changes, "--root", str(root)]


@pytest.mark.slow
def test_kill_9_then_the_same_command_gives_the_same_run(small_dataset: Path, tmp_path: Path):
    """By the command line, once; test_kills.py does it many times and in checkpoints."""
    straight = _train_command(small_dataset, tmp_path / "straight")
    subprocess.run(straight, check=True, capture_output=True, timeout=120)
    (whole,) = (tmp_path / "straight" / "runs").iterdir()
    broken = tmp_path / "killed" / "runs" / whole.name
    command = _train_command(small_dataset, tmp_path / "killed")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while _last_step(broken) < 30 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9, "the run ended before it could be killed"
    assert RunDirectory(broken).status == "running"
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert losses(RunDirectory(broken)) == losses(RunDirectory(whole))
    for name in ("model.safetensors", "optimizer.safetensors"):
        last = Path("checkpoints/step-00000300") / name
        assert (broken / last).read_bytes() == (whole / last).read_bytes()


def _last_step(run: Path) -> int:
    try:
        return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    except (OSError, ValueError, IndexError):
        return 0


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_exits_130(small_dataset: Path, tmp_path: Path):
    command = _train_command(small_dataset, tmp_path)
    process = subprocess.Popen(
        [*command, "execution.checkpoint_interval_steps=100000", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    while not (runs := list((tmp_path / "runs").glob("*"))) or _last_step(runs[0]) < 20:
        assert process.poll() is None
        time.sleep(0.002)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    facts = json.loads(output)
    assert facts["status"] == "preempted"
    assert [p.name for p in (runs[0] / "checkpoints").iterdir()] == [f"step-{facts['step']:08d}"]
