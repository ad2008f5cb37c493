"""An address at which no cluster can be joined is refused at once, saying why."""

import os
import socket
import subprocess
import sys
import threading
import time
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import ray

from lmray.distributed.cluster import require_head
from lmray.distributed.jobs import connect
from lmray.errors import PreflightError


@pytest.fixture
def closed() -> int:
    """A port at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def refusal(address: str) -> str:
    with pytest.raises(PreflightError, match="no Ray cluster answers at") as refused:
        require_head(address)
    assert refused.value.args[0].startswith(f"no Ray cluster answers at {address} (")
    return str(refused.value)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "ray://127.0.0.1:{}"])
def test_a_port_at_which_nothing_listens(form: str, closed: int):
    assert "Connection refused); check the address" in refusal(form.format(closed))


def test_a_dashboard_where_a_head_should_be():
    server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert "A head's port is 6379" in refusal(f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("address", ["127.0.0.1:70000", "a..b:1", "nosuch.invalid:6379"])
def test_what_cannot_be_connected_to(address: str):
    refusal(address)


@pytest.mark.parametrize("address", ["auto", "somewhere", "http://127.0.0.1:1", "127.0.0.1:x"])
def test_what_ray_itself_knows_what_to_do_with(address: str):
    require_head(address)


@pytest.mark.parametrize("address", ["127.0.0.1:x", "http://[::1"])
def test_what_is_no_address_of_a_dashboard(address: str):
    with pytest.raises(
        PreflightError, match=r"no Ray dashboard answers in HTTP at .*127\.0\.0\.1:8265"
    ):
        connect(address)


def test_nobody_waits_for_a_cluster_that_is_not_there(closed: int, tmp_path: Path):
    (tmp_path / "text.txt").write_text("one word and another\n" * 50)
    command = ["tokenizer", "train", "text.txt", "--valid", "text.txt", "--vocab-size", "270"]
    command += ["--name", "t", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "lmray", *command, "--address", f"127.0.0.1:{closed}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        f"error: no Ray cluster answers at 127.0.0.1:{closed}"
    )


@pytest.mark.ray
def test_a_head_is_one_and_no_dashboard(local_ray: None):
    head = ray.get_runtime_context().gcs_address
    begun = time.monotonic()
    require_head(head)
    with pytest.raises(PreflightError, match=f"answers in HTTP at http://{head};.*6379"):
        connect(head)
    assert time.monotonic() - begun < 5
