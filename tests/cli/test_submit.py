"""`lmray submit --local`, and what is refused before anything starts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmray.config import Budget, Data, Evaluation, Execution, flatten
from lmray.runs.run_directory import list_runs
from tests.small import small_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "say.py").write_text(
        "import sys; print('said', sys.argv[1]); sys.exit(5)\n"
    )
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def call(arguments: tuple[object, ...], cwd: Path, more: dict[str, str]) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LMRAY_"))}
    return {
        "args": [sys.executable, "-m", "lmray", "submit", *map(str, arguments)],
        "cwd": cwd,
        "env": environment | {"PYTHONPATH": str(ROOT)} | more,
    }


def submit(*arguments: object, cwd: Path, code: int, **more: str) -> str:
    done = subprocess.run(
        **call(arguments, cwd, more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def test_the_same_command_works_here_on_what_git_tracks(project: Path):
    (project / "sub" / "untracked").write_text("")
    shown = "import os; print(sorted(os.listdir()), 'SECRET' in os.environ, os.environ['KEY'])"
    here = ["--local", "--env", "KEY", "--", sys.executable]
    asked = {"SECRET": "a", "KEY": "b"}
    said = submit(*here, "-c", shown, cwd=project / "sub", code=0, **asked)
    assert said.splitlines()[-1] == "['say.py'] False b"
    assert "said two words" in submit(
        *here, "say.py", "two words", cwd=project / "sub", code=5, **asked
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--", "true"], "--address URL, --cluster YAML or --local"),
        (["--local", "--address", "http://x:1", "--", "true"], "one place to run"),
        (["--local"], "no command"),
        (["--local", "--detach", "--", "true"], "leave --detach, --cpus and --gpus out"),
        (["--local", "--gpus", "1", "--", "true"], "leave --detach, --cpus and --gpus out"),
        (["--local", "--stop", "raysubmit_1"], "--stop raysubmit_1 is for a job of a cluster"),
        (["--local", "--stop", "raysubmit_1", "--", "true"], "give --address URL or --cluster"),
        (["--local", "--root", "hdfs://x/y", "--", "lmray", "train"], "not 'hdfs://x/y'"),
        (["--local", "--env", "KEY=1", "--", "true"], "KEY is not in the environment"),
        (["--address", "http://x:1", "--", "lmray", "sweep", "run", "s.py"], "need a root"),
        (
            ["--address", "http://x:1", "--", "lmray", "train", "--root", "out"],
            "out is not absolute",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_as_usage(project: Path, arguments: list[str], words: str):
    assert words in submit(*arguments, cwd=project, code=2)


def test_an_address_where_nothing_answers_is_refused(project: Path):
    said = submit("--address", "http://127.0.0.1:9", "--", "true", cwd=project, code=3)
    assert "no Ray dashboard answers at http://127.0.0.1:9" in said


def test_an_option_is_for_more_than_the_environment_where_the_place_is(project: Path):
    elsewhere = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}
    submit("--local", "--", "true", cwd=project, code=0, **elsewhere)
    yaml = project / "none.yaml"
    said = submit("--cluster", yaml, "--", "true", cwd=project, code=3, **elsewhere)
    assert f"the head of {yaml} cannot be reached" in said
    assert "no Ray dashboard answers" in submit("--", "true", cwd=project, code=3, **elsewhere)


def test_what_is_sent_is_shown_with_its_size_and_its_largest_files(project: Path):
    for name, size in (("tiny", 1), ("large", 70_000), ("larger", 2_500_000), ("third", 900)):
        (project / name).write_bytes(b"x" * size)
    (project / "left").write_text("")
    subprocess.run(["git", "-C", str(project), "add", "tiny", "large", "larger"], check=True)
    subprocess.run(["git", "-C", str(project), "add", "third"], check=True)
    line = submit("--local", "--", "true", cwd=project, code=0).splitlines()[0]
    assert line == (
        "package: 5 files, 2.6 MB; largest: larger (2.5 MB), large (70.0 kB), third (900 B); "
        "left out as untracked: left"
    )


def interrupted(
    arguments: tuple[object, ...], cwd: Path, begun: Callable[[], bool], number: int, *, group: bool
) -> int:
    """The exit code of a submit that is told once `begun`, as a terminal or as kill does it."""
    process = subprocess.Popen(**call(arguments, cwd, {}), start_new_session=True)
    end = time.monotonic() + 120
    while not begun():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    (os.killpg if group else os.kill)(process.pid, number)
    return process.wait(timeout=120)


@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_command_that_is_interrupted_may_end_in_its_own_time(
    project: Path, tmp_path: Path, number: int, group: bool
):
    (project / "slow.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def end(number, frame):\n"
        "    time.sleep(1)\n"
        "    pathlib.Path(sys.argv[2]).touch()\n"
        "    sys.exit(7)\n"
        "signal.signal(int(sys.argv[3]), end)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(100)\n"
    )
    subprocess.run(["git", "-C", str(project), "add", "slow.py"], check=True)
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    words = ("--local", "--", sys.executable, "slow.py", begun, ended, int(number))
    assert interrupted(words, project, begun.exists, number, group=group) == 7
    assert ended.exists()


def test_a_command_that_a_signal_ends_has_a_shells_exit_code(project: Path):
    submit("--local", "--", "sh", "-c", "kill -KILL $$", cwd=project, code=128 + 9)


@pytest.mark.slow
def test_a_run_that_is_interrupted_here_leaves_a_checkpoint(
    project: Path, small_dataset: Path, tmp_path: Path
):
    # A step takes longer than the quarter of a second that a Ctrl-C leaves by itself.
    step = 1024 * 16
    run = small_run(
        small_dataset,
        data=Data(tokens=str(small_dataset), batch_size=1024),
        budget=Budget(tokens=1000 * step),
        evaluation=Evaluation(interval_tokens=1000 * step, prefix_tokens=256),
        execution=Execution(
            device="cpu", threads=1, checkpoint_interval_steps=10**6, log_interval_steps=1
        ),
    )
    changes = [f"{key}={value}" for key, value in flatten(run).items()]
    runs = tmp_path / "root" / "runs"
    words = ("--local", "--root", runs.parent, "--", "lmray", "train", *changes)

    def trains() -> bool:
        return any(each.records("train") for each in list_runs(runs))

    assert interrupted(words, project, trains, signal.SIGINT, group=True) == 130
    (directory,) = list_runs(runs)
    assert directory.status == "preempted"
    assert list((directory.path / "checkpoints").glob("step-*"))
