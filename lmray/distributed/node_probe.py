"""Run on a node through ssh, by its own Python: facts about the node, one JSON line on stdout.

Only the standard library is used: what else the node has is the question. `python - JSON` with
  {"do": "facts"}                                versions, clock, GPUs, cores
  {"do": "listen", "port": 6379}                 says who has the port, or listens until stdin ends
  {"do": "connect", "host": ..., "port": ...}    whether a connection comes about
  {"do": "write" | "read" | "remove", "path": ..., "text": ...}    a probe file of shared storage
"""

import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path


def _main(asked):
    answer = globals()[f"_do_{asked.pop('do')}"](**asked)
    print("lmray-node-probe " + json.dumps(answer), flush=True)
    if answer.get("listening"):
        sys.stdin.read()


def _do_facts():
    found = {"python": platform.python_version(), "time": time.time(), "cores": os.cpu_count()}
    for package in ("ray", "lmray"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["ray_command"] = shutil.which("ray") or ""
    found["gpus"] = _gpus()
    return found


def _gpus():
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except OSError:
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def _do_listen(port):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("", port))
        server.listen()
    except OSError:
        return {"listening": False, "holders": _holders(port)}
    globals()["server"] = server  # open as long as the process
    return {"listening": True, "holders": []}


def _holders(port):
    """The commands of the processes that listen at a port, as far as this user may see them."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else []:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) in inodes:
                found.add((link.parents[1] / "comm").read_text().strip())
        except OSError:
            continue
    return sorted(found)


def _do_connect(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return {"error": error.strerror or str(error)}
    return {"error": ""}


def _do_write(path, text):
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    except OSError as error:
        return {"error": error.strerror or str(error)}
    return {"error": ""}


def _do_read(path, text):
    for _ in range(20):  # a network file system may show a new file a moment later
        try:
            sorted(Path(path).parent.iterdir())
            if Path(path).read_text() == text:
                return {"error": ""}
        except OSError:
            pass
        time.sleep(0.25)
    return {"error": "the file is not there"}


def _do_remove(path):
    Path(path).unlink(missing_ok=True)
    return {"error": ""}


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
