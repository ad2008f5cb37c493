"""scripts/before_the_end.py: a host that will end leaves checkpoints, and Ray leaves the host."""

import importlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ray.tune.trainable.function_trainable import wrap_function

from lmray.config import Budget, Evaluation, Execution, override
from lmray.dataset import open_splits
from lmray.distributed.trial import NamedJob, job
from lmray.runs.execute import execute
from lmray.runs.run_directory import list_runs
from lmray.sweeps.decisions.asha import TO_THE_END
from lmray.sweeps.space import Space
from lmray.training.checkpoint import newest_step
from tests.distributed.killing import Driver
from tests.small import small_run

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "before_the_end.py"
STEPS = 10**5
"""More than are taken before the notice is heard, on any machine."""

APART = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""A host's processes of its own: the script tells, and `ray stop` ends, all that it finds."""


@pytest.fixture(scope="module")
def script() -> Iterator[object]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        yield importlib.import_module("before_the_end")


class Metadata(ThreadingHTTPServer):
    """AWS's metadata service as far as it is asked: version 2, a notice once there is one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.notice = ""
        self.failures = 0
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        if self.server.failures:
            self.server.failures -= 1
            self._answer(503, "")
            return
        seconds = int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"])
        known = self.path == "/latest/api/token" and 1 <= seconds <= 21600
        self._answer(200 if known else 400, "the-token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "the-token":
            self._answer(401, "")
        elif self.path == "/latest/meta-data/spot/instance-action" and self.server.notice:
            self._answer(200, self.server.notice)
        else:
            self._answer(404, "")

    def _answer(self, status: int, text: str) -> None:
        self.server.asked.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def metadata() -> Iterator[Metadata]:
    with Metadata() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def test_a_notice_is_asked_for_in_version_2_and_is_there_or_not(script):
    with metadata() as server:
        assert script.notice(server.url) == ""
        server.notice = '{"action": "terminate", "time": "2026-11-29T19:00:00Z"}'
        assert script.notice(server.url) == server.notice
        action = "GET /latest/meta-data/spot/instance-action"
        token = "PUT /latest/api/token 200"
        assert server.asked == [token, f"{action} 404", token, f"{action} 200"]


def test_a_service_that_fails_is_said_once_and_asked_again(
    script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(script, "_ASK_S", 0.01)
    with metadata() as server:
        server.failures, server.notice = 3, '{"action": "stop"}'
        script.await_notice(server.url)
        assert len(server.asked) == 5
    said = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert len(said) == 3
    assert "503" in said[1]
    assert said[2] == 'notice: {"action": "stop"}'


def test_titles_are_those_that_ray_gives_to_what_trains(script):
    worker = importlib.import_module("ray.train.v2._internal.execution.worker_group.worker")
    assert script.WORKERS.match(f"ray::{worker.RayTrainWorker.__name__}.execute")
    for trial in (NamedJob, wrap_function(job)):
        assert script.TRIALS.match(f"ray::{trial.__name__}.train")
        assert not script.WORKERS.match(f"ray::{trial.__name__}.train")
    assert not script.TRIALS.match("ray::IDLE")


def without() -> str:
    """What keeps this machine from a host's processes apart; empty if nothing does."""
    try:
        done = subprocess.run([*APART, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(bool(without()), reason=without())
def test_a_trial_has_its_checkpoint_and_ray_is_gone_after_a_notice(
    small_dataset: Path, tmp_path: Path
):
    run = small_run(
        small_dataset,
        budget=Budget(tokens=STEPS * 64),
        evaluation=Evaluation(interval_tokens=STEPS * 64, prefix_tokens=256),
        # None before its end but that of the notice.
        execution=Execution(
            device="cpu", threads=1, checkpoint_interval_steps=10**6, log_interval_steps=10
        ),
    )
    question = Space("killed", "", run, {"optim.lr": [1e-3]}, (0,), TO_THE_END)
    watch = f'{sys.executable} {SCRIPT} --watch >{tmp_path}/watch.log 2>&1 & "$@"; code=$?; wait'
    with metadata() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMRAY_METADATA_URL", server.url)
        patch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
        within = [*APART, "bash", "-c", f"{watch}; exit $code", "-"]
        driver = Driver(question, tmp_path, "--tokens-per-s", "100000", within=within)
        while not any(each.records("train") for each in list_runs(tmp_path / "runs")):
            driver.check()
            time.sleep(0.05)
        server.notice = '{"action": "terminate"}'
        driver.process.wait(timeout=200)
    said = (tmp_path / "watch.log").read_text()
    assert 'notice: {"action": "terminate"}' in said
    assert "told 1 to write a checkpoint" in said
    [seconds] = re.findall(r"they have left after ([\d.]+) s; ray stop", said)
    assert float(seconds) < 60
    assert driver.processes("raylet/raylet ") == []
    [left] = list_runs(tmp_path / "runs")
    # Nothing has begun it again here meanwhile.
    [life] = left.facts["lives"]
    assert (life["status"], left.status) == ("preempted", "preempted")
    step = left.facts["step"]
    assert newest_step(left.checkpoints) == step > 0
    run = override(run, {"optim.lr": 1e-3})
    execute(
        run,
        open_splits(small_dataset),
        tmp_path / "runs",
        report=lambda record: None,
        interrupted=lambda: True,
    )
    [_, second] = left.facts["lives"]
    assert (second["began_at_step"], left.facts["step"]) == (step, step + 1)
