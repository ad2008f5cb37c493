"""A server on this machine that answers as AWS does (moto's): EC2, IAM and S3."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WITHOUT = ", ".join(
    name for name in ("moto", "flask", "flask_cors", "boto3") if not importlib.util.find_spec(name)
)
"""What is missing for it (pip install moto flask flask-cors boto3); empty if nothing is."""


@contextmanager
def fake_aws(directory: Path) -> Iterator[dict[str, str]]:
    """Starts the server for the block; yields the environment in which its clients find it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    # `ray up` gives the head the policies that AWS keeps ready.
    environment = os.environ | {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    with (directory / "moto.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 200
        while not _answers(url):
            assert server.poll() is None, (directory / "moto.log").read_text()
            assert time.monotonic() < until, "moto's server did not come up"
            time.sleep(0.2)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "a-secret-that-no-log-may-have",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_CONFIG_FILE": str(directory / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(directory / "none"),
        }
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=10):
            return True
    except OSError:
        return False
