"""Jobs of a Ray cluster: reaching its dashboard, submitting a package and a command, following it.

A dashboard asks for a token or does not, whatever this process assumes: it is asked first. The
token and the values of a job's environment are never printed; but Ray keeps a job's environment
where everyone who holds the cluster's token can read it.
"""

import asyncio
import http.client
import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from ray.job_submission import JobStatus, JobSubmissionClient

from lmray.distributed.package import Package
from lmray.errors import LmrayError, PreflightError

STOP_SECONDS = 120
"""How long a job that was asked to end may take, before Ray kills it: by itself, three."""

_TUNNEL_SECONDS = 90
_AGENT_SECONDS = 90

# A proxy of the environment is for the world, not for a tunnel or a private network.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Jobs:
    """A cluster's jobs."""

    client: JobSubmissionClient
    auth_mode: str
    """Whether the cluster asks for a token: "token" or "disabled"."""
    headers: Mapping[str, str] = field(repr=False)
    """What each request carries: the token."""

    def get(self, path: str) -> Any:
        """The dashboard's answer, as JSON, to a GET of `path`."""
        url = f"{self.client.get_address()}{path}"
        with _OPENER.open(_request(url, self.headers), timeout=60) as response:
            return json.load(response)

    def submit(
        self,
        command: Sequence[str],
        package: Package,
        folder: Path,
        environment: Mapping[str, str],
        *,
        cpus: int = 0,
        gpus: int = 0,
    ) -> str:
        """Sends the package, starts the command in its `folder`, returns the job's id.

        It runs on the head, or with `cpus` or `gpus` on a node that gives so many to it alone; a
        cluster that can grow starts one.
        """
        words = ["python", "-m", *command] if command[0] == "lmray" else list(command)
        where = folder.resolve().relative_to(package.root)
        with tempfile.TemporaryDirectory(prefix="lmray-submit-") as scratch:
            archive = Path(scratch) / "package.zip"
            package.write(archive)
            return self._submit_once_ready(
                entrypoint=f"cd {shlex.quote(str(where))} && exec {shlex.join(words)}",
                runtime_env={
                    "working_dir": str(archive),
                    "env_vars": {
                        "RAY_AUTH_MODE": self.auth_mode,
                        # Ray's supervisor of the job has its environment.
                        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
                        **environment,
                    },
                },
                metadata={
                    "job_name": shlex.join(command),  # what the dashboard shows
                    "git_revision": package.revision,
                },
                entrypoint_num_cpus=cpus,
                entrypoint_num_gpus=gpus,
            )

    def _submit_once_ready(self, **job: Any) -> str:
        # A dashboard answers some seconds before the agent that starts jobs has joined it.
        end = time.monotonic() + _AGENT_SECONDS
        while True:
            try:
                return self.client.submit_job(**job)
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > end:
                    raise LmrayError(
                        f"the cluster did not take the job: {_short(error)}"
                    ) from error
            time.sleep(1)

    def follow(self, job: str, write: Callable[[str], Any]) -> int:
        """Passes on what a job prints until it has ended; returns its exit code, 130 if stopped.

        Raises LmrayError if the cluster cannot be reached any more.
        """
        passed = 0

        async def tail() -> None:
            nonlocal passed
            seen = 0
            async for text in self.client.tail_job_logs(job):
                seen += len(text)
                if seen > passed:
                    write(text[passed - seen :])
                    passed = seen

        try:
            while True:
                # A log that is cut off begins anew; whether the cluster is there, the status says.
                with suppress(aiohttp.ClientError, OSError, RuntimeError):
                    asyncio.run(tail())
                if (status := self.client.get_job_status(job)).is_terminal():
                    break
                time.sleep(0.5)
            if rest := self.client.get_job_logs(job)[passed:]:
                write(rest)
        except (OSError, RuntimeError) as error:
            raise LmrayError(
                f"lost the connection to the cluster while following {job} ({_short(error)}); the "
                f"job goes on if the cluster does: see `ray job logs {job}`, end it by --stop {job}"
            ) from error
        if status == JobStatus.STOPPED:
            return 130
        if status == JobStatus.SUCCEEDED:
            return 0
        details = self.client.get_job_info(job)
        if details is None or details.driver_exit_code is None:
            why = details.message if details else "it is gone"
            raise LmrayError(f"job {job} failed: {' '.join(str(why).split())[:500]}")
        return int(details.driver_exit_code)

    def stop(self, job: str) -> bool:
        """Asks a job to end (SIGTERM), for which it has STOP_SECONDS; says whether it was running.

        Raises PreflightError if the cluster knows no such job.
        """
        try:
            return self.client.stop_job(job)
        except RuntimeError as error:
            ids = [details.submission_id for details in self.client.list_jobs() if details]
            known = ", ".join(filter(None, ids)) or "none"
            raise PreflightError(
                f"the cluster knows no job {job!r} ({_short(error)}); it knows {known}"
            ) from error


def connect(address: str) -> Jobs:
    """The jobs of the cluster whose dashboard answers at `address`, as in http://127.0.0.1:8265.

    Raises PreflightError if none does, or it asks for a token and none, or the wrong one, is here.
    """
    address = (address if "://" in address else f"http://{address}").rstrip("/")
    # Without a header of this name Ray's client looks for a token, and fails if there is none.
    mode, headers = "disabled", {"Authorization": "none"}
    status = _answer(address, {})
    if status == 401:
        mode, headers = "token", {"Authorization": f"Bearer {auth_token(address)}"}
        status = _answer(address, headers)
    if status in (401, 403):
        raise PreflightError(
            f"{address} does not accept this token; put the cluster's own into RAY_AUTH_TOKEN, the "
            f"file RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token"
        )
    if status != 200:
        raise PreflightError(
            f"{address}/api/version answers {status}, as no Ray dashboard does; give the address "
            f"of one, as in http://127.0.0.1:8265 while `ray dashboard cluster.yaml` runs"
        )
    # Ray's client tells of each upload and each end of a log, at levels it sets itself.
    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    return Jobs(JobSubmissionClient(address, headers=dict(headers)), mode, headers)


def auth_token(address: str) -> str:
    """The token that Ray's own tools would show to the cluster at `address`.

    Raises PreflightError if there is none.
    """
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if not path.is_file():
        raise PreflightError(
            f"{address} asks for a token and {path} is not there; copy the cluster's token to it, "
            f"or name it with RAY_AUTH_TOKEN_PATH"
        )
    return path.read_text().strip()


@contextmanager
def tunnel(cluster_yaml: Path) -> Iterator[str]:
    """Reaches the dashboard on the head's loopback, as `ray dashboard` does; yields its address.

    Raises PreflightError if the head cannot be reached.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "dashboard", str(cluster_yaml)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            end = time.monotonic() + _TUNNEL_SECONDS
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > end:
                    said.seek(0)
                    lines = [line for line in said.read().splitlines() if line.strip()]
                    raise PreflightError(
                        f"the head of {cluster_yaml} cannot be reached "
                        f"({' '.join(lines[-2:])[-300:]}); is the cluster up? `lmray cluster check "
                        f"{cluster_yaml}` looks for the reason"
                    )
                time.sleep(0.2)
            yield address
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


@contextmanager
def reach(address: str, cluster_yaml: Path | None) -> Iterator[Jobs]:
    """The jobs of the cluster at an address or, through a tunnel, of a cluster's YAML."""
    if cluster_yaml is None:
        yield connect(address)
        return
    with tunnel(cluster_yaml) as url:
        yield connect(url)


def _answers(address: str) -> bool:
    try:
        return _answer(address, {}) != 0
    except PreflightError:
        return False


def _answer(address: str, headers: Mapping[str, str]) -> int:
    """The HTTP status of a dashboard's version, 0 if the connection is cut.

    Raises PreflightError if it is no URL, or nothing listens there, or does not speak HTTP.
    """
    try:
        with _OPENER.open(_request(f"{address}/api/version", headers), timeout=20) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        raise PreflightError(
            f"no Ray dashboard answers at {address} ({error.reason}); start `ray dashboard "
            f"cluster.yaml` or give --cluster cluster.yaml, which does so itself"
        ) from error
    except OSError:
        return 0
    except (http.client.HTTPException, ValueError) as error:
        raise PreflightError(
            f"no Ray dashboard answers in HTTP at {address}; give the address of one, as in "
            f"http://127.0.0.1:8265 (6379 is the port to join a cluster by)"
        ) from error


def _request(url: str, headers: Mapping[str, str]) -> urllib.request.Request:
    return urllib.request.Request(url, headers=dict(headers))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
