"""Jobs of a real Ray: where they run, how they are stopped, how they are followed."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lmray.config import Budget, Data, Evaluation, Execution
from lmray.distributed.cluster_status import cluster_status
from lmray.distributed.jobs import Jobs, connect
from lmray.errors import LmrayError
from lmray.runs.run_directory import list_runs
from lmray.sweeps.decisions.asha import TO_THE_END
from lmray.sweeps.space import Space
from tests.distributed.job_cluster import JobCluster, job_cluster
from tests.distributed.killing import write_space
from tests.small import small_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_COUNTING = "import time\nfor number in range(8):\n    print('line', number)\n    time.sleep(1)\n"
_TIDY = (
    "import signal, sys, time\n"
    "def end(number, frame):\n"
    "    time.sleep(5)\n"
    "    print('put everything away')\n"
    "    sys.exit(130)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "print('ready')\n"
    "time.sleep(200)\n"
)
_NORMAL_CLOSE = b"\x88\x02\x03\xe8"
"""A websocket's frame: closed, code 1000."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[JobCluster]:
    with job_cluster() as cluster:
        yield cluster


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "counting.py").write_text(_COUNTING)
    (folder / "tidy.py").write_text(_TIDY)
    track(folder)
    return folder


def track(folder: Path) -> None:
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)


@pytest.fixture
def token(cluster: JobCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", cluster.token)


class Proxy:
    """A way to the dashboard that can be cut, as a tunnel can."""

    def __init__(self, address: str) -> None:
        self._there = ("127.0.0.1", urlsplit(address).port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.hangs_up = False
        self._open: list[socket.socket] = []
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if self.hangs_up:
                    client.close()
                    continue
                there = socket.create_connection(self._there)
                self._clients.append(client)
                self._open += [client, there]
                for source, target in ((client, there), (there, client)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()

    def cut(self, farewell: bytes = b"") -> None:
        """Ends the connections there are, after a last word to each client."""
        for each in self._clients:
            with suppress(OSError):
                each.sendall(farewell)
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()
        self._clients.clear()

    def close(self) -> None:
        self._server.close()
        self.cut()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(cluster: JobCluster, token: None) -> Iterator[Proxy]:
    proxy = Proxy(cluster.address)
    yield proxy
    proxy.close()


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def started(jobs: Jobs, command: str) -> str:
    """A job that has printed something."""
    job = jobs.client.submit_job(entrypoint=command)
    wait_for(lambda: "line" in jobs.client.get_job_logs(job), "the job prints nothing")
    return job


def test_a_job_that_asks_for_a_gpu_gets_a_node_that_has_one(cluster: JobCluster, project: Path):
    shown = "import os; print('GPU', os.environ.get('CUDA_VISIBLE_DEVICES'))"
    job = ["--", "python", "-c", shown]
    assert cluster.submit(*job, cwd=project).splitlines()[-1] == "GPU None"
    assert "GPU 0" in cluster.submit("--gpus", 1, *job, cwd=project).splitlines()


def test_a_sweep_that_is_stopped_leaves_checkpoints_of_the_steps_it_was_in(
    cluster: JobCluster, small_dataset: Path, tmp_path: Path
):
    # A step takes longer than the three seconds that Ray gives a job by itself.
    tokens = 8192 * 16
    execution = Execution(device="cpu", threads=1, checkpoint_interval_steps=10**6)
    run = small_run(
        small_dataset,
        data=Data(tokens=str(small_dataset), batch_size=8192),
        budget=Budget(tokens=1000 * tokens),
        evaluation=Evaluation(interval_tokens=1000 * tokens, prefix_tokens=256),
        execution=execution,
    )
    project, root = tmp_path / "project", tmp_path / "root"
    project.mkdir()
    space = Space("long", "", run, {"optim.lr": [1e-3, 2e-3]}, (0,), TO_THE_END)
    write_space(project / "long.py", space)
    track(project)
    sweep = ["lmray", "sweep", "run", "long.py", "--tokens-per-s", 10_000]
    said = cluster.submit("--root", root, "--detach", "--", *sweep, cwd=project)
    job = said.split()[-1]
    wait_for(lambda: len(list_runs(root / "runs")) == 2, "the sweep does not begin")
    said = cluster.submit("--stop", job, cwd=project)
    assert "120 seconds" in said
    wait_for(lambda: all(each.status != "running" for each in list_runs(root / "runs")), "no end")
    for each in list_runs(root / "runs"):
        assert each.status == "preempted"
        (checkpoint,) = (each.path / "checkpoints").glob("step-*")
        assert int(checkpoint.name.removeprefix("step-")) > 0


def test_a_job_that_is_stopped_has_the_time_to_put_things_away(
    cluster: JobCluster, project: Path, token: None
):
    job = cluster.submit("--detach", "--", "python", "tidy.py", cwd=project).split()[-1]
    jobs = connect(cluster.address)
    wait_for(lambda: "ready" in jobs.client.get_job_logs(job), "the job does not begin")
    shown = {each["id"]: each["command"] for each in cluster_status(jobs).jobs}
    assert shown[job] == "python tidy.py"
    cluster.submit("--stop", job, cwd=project)
    said: list[str] = []
    assert jobs.follow(job, said.append) == 130
    assert "put everything away" in "".join(said)


@pytest.mark.parametrize("farewell", [_NORMAL_CLOSE, b""], ids=["closed", "cut"])
def test_a_log_that_is_cut_off_goes_on_where_it_was(proxy: Proxy, project: Path, farewell: bytes):
    jobs = connect(proxy.address)
    job = started(jobs, f"python -u {project / 'counting.py'}")
    said: list[str] = []
    cuts = 0

    def write(text: str) -> None:
        nonlocal cuts
        said.append(text)
        if "line" in text and cuts < 2:
            cuts += 1
            proxy.cut(farewell)

    assert jobs.follow(job, write) == 0
    assert cuts == 2
    lines = [line for line in "".join(said).splitlines() if line.startswith("line")]
    assert lines == [f"line {number}" for number in range(8)]


def test_a_cluster_that_is_gone_is_said_in_one_line(proxy: Proxy, project: Path):
    jobs = connect(proxy.address)
    job = started(jobs, f"python -u {project / 'counting.py'}")
    proxy.hangs_up = True
    with pytest.raises(LmrayError, match=f"lost the connection .*--stop {job}"):
        jobs.follow(job, print)
