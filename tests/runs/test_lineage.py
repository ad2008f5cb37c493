"""Runs that begin from the end of another one."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from lmray import remote
from lmray.cli.main import main
from lmray.config import Optim, Run, override, parse_assignments, run_id
from lmray.dataset import Splits, open_splits
from lmray.errors import CorruptionError, PreflightError, UsageError
from lmray.runs.execute import execute
from lmray.runs.run_directory import RunDirectory
from lmray.training import checkpoint
from tests.folder_store import use_folder
from tests.runs.test_kills import measured
from tests.small import small_run

STEP = 64
"""Training tokens of a step of a small run."""


@pytest.fixture(scope="module")
def splits(small_dataset: Path) -> Splits:
    return open_splits(small_dataset)


def steps(tokens: Path, count: int, **changes: object) -> Run:
    """A run of so many steps at a constant rate; `changes` are of optim."""
    constant = Optim.model_validate(
        {"lr": 1e-2, "schedule": "constant", "warmup_fraction": 0.0, **changes}
    )
    run = small_run(tokens, optim=constant)
    changed = {"budget.tokens": count * STEP, "execution.checkpoint_interval_steps": 9}
    return override(run, changed)


def trained(run: Run, runs: Path) -> RunDirectory:
    return execute(run, open_splits(run.data.tokens), runs, report=lambda record: None)


@pytest.fixture(scope="module")
def family(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with one run of 40 steps that is done, and its id; read only."""
    runs = tmp_path_factory.mktemp("family")
    return runs, trained(steps(small_dataset, 40), runs).path.name


@pytest.fixture
def runs(family: tuple[Path, str], tmp_path: Path) -> Path:
    """That folder, to be written to."""
    shutil.copytree(family[0], tmp_path / "runs")
    return tmp_path / "runs"


def child(tokens: Path, family: tuple[Path, str], count: int = 80, **changes: object) -> Run:
    return override(steps(tokens, count, **changes), {"begins_from": family[1]})


@pytest.mark.parametrize("name", ["adamw", "normuon", "sgd"])
def test_a_child_with_its_parents_settings_is_the_run_that_was_trained_straight_through(
    small_dataset: Path, tmp_path: Path, name: str
):
    whole = trained(steps(small_dataset, 80, name=name), tmp_path / "whole")
    first = trained(steps(small_dataset, 40, name=name), tmp_path / "runs")
    run = override(steps(small_dataset, 80, name=name), {"begins_from": first.path.name})
    second = trained(run, tmp_path / "runs")
    assert measured(second) == [line for line in measured(whole) if line[2] > 40]
    at_end = [each.checkpoints / "step-00000080" for each in (whole, second)]
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert at_end[0].joinpath(file).read_bytes() == at_end[1].joinpath(file).read_bytes()
    states = [json.loads((path / "state.json").read_text()) for path in at_end]
    assert states[0]["random"] == states[1]["random"]
    assert states[0]["optimizer"] == states[1]["optimizer"]


def test_a_child_says_where_it_began_and_what_it_trained_itself(
    small_dataset: Path, family: tuple[Path, str], runs: Path
):
    run = child(small_dataset, family, lr=1e-3, weight_decay=0.0)
    directory = trained(run, runs)
    facts = directory.facts
    assert directory.path.name == run_id(run, facts["data"]["digest"])
    assert (facts["status"], facts["step"], facts["tokens"]) == ("done", 80, 80 * STEP)
    assert [life["began_at_step"] for life in facts["lives"]] == [40]
    assert directory.began_at_tokens == 40 * STEP
    assert RunDirectory(runs / family[1]).began_at_tokens == 0
    records = directory.records("train")
    assert [r["step"] for r in records] == list(range(41, 81))
    assert {r["lr"] for r in records} == {1e-3}
    # Of its own life alone: no rate is that of tokens which the parent trained.
    assert max(r["tokens_per_s"] * r["seconds"] for r in records[:1]) < 5 * STEP
    assert facts["seconds"] == pytest.approx(records[-1]["seconds"], abs=5)


def test_the_hyperparameters_of_every_group_are_the_childs(
    small_dataset: Path, family: tuple[Path, str], runs: Path
):
    directory = trained(child(small_dataset, family, lr=1e-3, weight_decay=0.5, beta2=0.9), runs)
    (end,) = checkpoint.select(directory.checkpoints, "80")
    (group,) = json.loads((end / "state.json").read_text())["optimizer"]["groups"]
    assert (group["lr"], group["peak_lr"], group["weight_decay"]) == (1e-3, 1e-3, 0.5)
    assert group["betas"] == [0.9, 0.9]


def test_a_lineage_is_a_chain_of_ids(small_dataset: Path, family: tuple[Path, str], runs: Path):
    second = trained(child(small_dataset, family, 50, lr=2e-3), runs)
    third = trained(override(steps(small_dataset, 60), {"begins_from": second.path.name}), runs)
    assert third.config.begins_from == second.path.name
    assert second.config.begins_from == family[1]
    digest = third.facts["data"]["digest"]
    # Another grandparent, another grandchild, though nothing else of it differs.
    other = run_id(child(small_dataset, family, 50, lr=3e-3), digest)
    again = override(steps(small_dataset, 60), {"begins_from": other})
    assert run_id(again, digest) != third.path.name


LIFE = """
import sys
from pathlib import Path
from lmray.config import Run
from lmray.dataset import open_splits
from lmray.runs.execute import execute
from tests.runs.dying import Leash

run = Run.model_validate_json(sys.argv[1])
execute(run, open_splits(run.data.tokens), Path(sys.argv[2]), report=Leash(int(sys.argv[3]), 1))
"""


@pytest.mark.slow
def test_a_child_that_is_killed_goes_on_to_the_same_curve(
    small_dataset: Path, family: tuple[Path, str], runs: Path, tmp_path: Path
):
    """Once before it has a checkpoint of its own, once after."""
    run = child(small_dataset, family, 100, lr=3e-3)
    shutil.copytree(runs, tmp_path / "whole")
    whole = trained(run, tmp_path / "whole")
    for leash in (5, 30):
        life = subprocess.Popen(
            [sys.executable, "-c", LIFE, run.model_dump_json(), str(runs), str(leash)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )
        assert life.stdout is not None
        assert life.stdout.read(1) == b"."  # it waits at the end of its leash
        life.kill()
        life.communicate()
    killed = trained(run, runs)
    assert killed.path.name == whole.path.name
    began = [life["began_at_step"] for life in killed.facts["lives"]]
    assert began[:2] == [40, 40]
    assert began[2] > 40
    assert killed.began_at_tokens == 40 * STEP
    assert measured(killed) == measured(whole)


def test_once_it_has_a_checkpoint_of_its_own_it_needs_no_parent_unless_that_is_damaged(
    small_dataset: Path, family: tuple[Path, str], runs: Path
):
    run = child(small_dataset, family)

    def die(record: dict) -> None:
        if record["kind"] == "train" and record["step"] == 60:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        execute(run, open_splits(small_dataset), runs, report=die)
    broken = RunDirectory(runs / run_id(run, open_splits(small_dataset).digest))
    kept = runs.with_name("kept")
    (runs / family[1]).rename(kept)
    whole = checkpoint.newest_first(broken.checkpoints)
    for path in whole:
        path.joinpath("state.json").rename(path / "aside")
    with pytest.raises(PreflightError, match="no such run"):
        trained(run, runs)  # and does not begin from nothing
    for path in whole:
        path.joinpath("aside").rename(path / "state.json")
    assert trained(run, runs).status == "done"
    kept.rename(runs / family[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.d_model": 32}, r"model\.d_model is 16 there and 32 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"data.batch_size": 2}, r"data\.batch_size is 4 there and 2 here"),
        ({"optim.name": "sgd"}, r"optim\.name is 'adamw' there and 'sgd' here"),
        ({"optim.no_decay": "norms"}, r"optim\.no_decay is 'none' there and 'norms' here"),
        ({"budget.tokens": 40 * STEP}, "has taken 40 steps.*this budget ends after 40; .*raise"),
        ({"budget.steps": 39}, "this budget ends after 39"),
        ({"budget.flops": 1e7}, "this budget ends after"),
        ({"begins_from": "0" * 12}, "begins_from=000000000000: no such run in .*lmray board"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused_and_leaves_nothing_behind(
    small_dataset: Path, family: tuple[Path, str], changes: dict, message: str
):
    before = sorted(family[0].iterdir())
    with pytest.raises(PreflightError, match=message) as caught:
        trained(override(child(small_dataset, family), changes), family[0])
    assert "\n" not in str(caught.value)
    assert sorted(family[0].iterdir()) == before


def test_a_parent_that_is_not_done_or_lost_its_end_is_refused(
    small_dataset: Path, family: tuple[Path, str], runs: Path
):
    run, parent = child(small_dataset, family), RunDirectory(runs / family[1])
    (end,) = checkpoint.select(parent.checkpoints, "40")
    weights = (end / "model.safetensors").read_bytes()
    (end / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(CorruptionError, match="truncated or altered"):
        trained(run, runs)
    (end / "model.safetensors").write_bytes(weights)
    checkpoint.keep_weights(end)
    with pytest.raises(PreflightError, match="has not kept the checkpoint of its last step 40"):
        trained(run, runs)
    shutil.rmtree(end)
    with pytest.raises(PreflightError, match="has not kept the checkpoint of its last step 40"):
        trained(run, runs)
    parent.finish("preempted", {})
    with pytest.raises(PreflightError, match="its status is preempted"):
        trained(run, runs)


def test_what_is_no_run_id_is_refused():
    for wrong in ("runs/abc", "ABCDEF012345", ""):
        with pytest.raises(UsageError, match="is no run id of 12 hex digits"):
            override(Run(), {"begins_from": wrong})
    for digits in ("123456789012", "1e5678901234", "000000000000"):
        assert parse_assignments([f"begins_from={digits}"]) == {"begins_from": digits}


def test_the_parent_is_fetched_from_a_url(
    small_dataset: Path, family: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    use_folder(tmp_path / "store", monkeypatch)
    monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / "one"))
    first = remote.cached("s3://bucket/out/runs")
    shutil.copytree(family[0] / family[1], first / family[1])
    remote.publish(first / family[1])
    monkeypatch.setenv("LMRAY_CACHE", str(tmp_path / "other"))
    other = remote.cached("s3://bucket/out/runs")
    other.mkdir(parents=True)
    directory = trained(child(small_dataset, family), other)
    assert (directory.status, directory.began_at_tokens) == ("done", 40 * STEP)


def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str, code: int = 0
) -> str:
    monkeypatch.setattr(sys, "argv", ["lmray", "train", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_a_newcomer_names_the_run_and_what_changes(
    family: tuple[Path, str],
    runs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    train = partial(command, capsys, monkeypatch)
    root = ["--root", str(runs.parent)]
    decay = ["optim.schedule=linear", f"budget.tokens={60 * STEP}"]
    facts = json.loads(train(f"begins_from={family[1][:6]}", *decay, *root, "--json"))
    found, parent = RunDirectory(Path(facts["run"])), RunDirectory(runs / family[1])
    wanted = {"optim.schedule": "linear", "budget.tokens": 60 * STEP, "begins_from": family[1]}
    assert found.config == override(parent.config, wanted)
    assert (facts["status"], facts["tokens"]) == ("done", 60 * STEP)
    said = train(f"begins_from={runs / family[1]}", *decay, *root)
    assert f"after 3,840 tokens, 2,560 of them those of {family[1]};" in said.replace("\n", " ")
    # A preset or a file is asked for by name; tiny is not this run's model.
    data = [f"data.tokens={parent.facts['data']['path']}", "model.vocab_size=300"]
    message = train(f"begins_from={family[1]}", "--config", "tiny", *data, *root, code=3)
    assert "model.d_model is 16 there and" in message
    assert "no run begins with 'ffffff'" in train("begins_from=ffffff", *root, code=2)
