"""Run on a node through ssh, by its own Python: facts about the node, one JSON line on stdout.

Only the standard library is used, and pyarrow for a URL: what else the node has is the question.
`python - JSON` with
  {"do": "facts", "packages": [...], "salt": ...}    versions, clock, GPUs, cores, the token's hash
  {"do": "listen", "ports": [6379, 0]}    says who has a port, or listens there until stdin ends
  {"do": "connect", "to": [[host, port], ...]}    to which of them no connection comes about
  {"do": "write" | "read" | "remove", "path": ..., "text": ...}    a probe file of shared storage
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SERVERS = []  # open as long as the process


def _main(asked):
    answer = globals()[f"_do_{asked.pop('do')}"](**asked)
    print("lmray-node-probe " + json.dumps(answer), flush=True)
    if "ports" in answer:
        sys.stdin.read()


def _do_facts(packages, salt):
    found = {"python": platform.python_version(), "time": time.time(), "cores": os.cpu_count()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["ray_command"] = shutil.which("ray") or ""
    found["gpus"] = _gpus()
    found["auth_mode"] = os.environ.get("RAY_AUTH_MODE", "")
    token, found["token_from"] = _token()
    found["token"] = hashlib.sha256((salt + token).encode()).hexdigest() if token else ""
    return found


def _token():
    """The token that Ray would show, and the variable that names it, empty for Ray's own file."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"], "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
    try:
        token = Path(named or "~/.ray/auth_token").expanduser().read_text().strip()
    except OSError:
        token = ""
    return token, "RAY_AUTH_TOKEN_PATH" if named else ""


def _gpus():
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def _do_listen(ports):
    """For each port where it listens now, or None and who has it; 0 is any that is free."""
    answer = {"ports": [], "holders": []}
    for port in ports:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
            server.listen(1024)
        except OSError:
            answer["ports"].append(None)
            answer["holders"] += _holders(port)
            continue
        answer["ports"].append(server.getsockname()[1])
        _SERVERS.append(server)
    return answer


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


def _do_connect(to):
    with ThreadPoolExecutor(max_workers=16) as pool:
        errors = list(pool.map(_connect, to))
    return {"failed": [[*where, why] for where, why in zip(to, errors, strict=True) if why]}


def _connect(where):
    try:
        socket.create_connection(tuple(where), timeout=5).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _do_write(path, text):
    try:
        _write(path, text)
    except (OSError, ImportError, ValueError) as error:
        return {"error": _said(error)}
    return {"error": ""}


def _do_read(path, text):
    end = time.monotonic() + 5  # a network file system may show a new file a moment later
    while True:
        why = "the file is not there"
        try:
            if _read(path) == text:
                return {"error": ""}
        except FileNotFoundError:
            pass
        except (OSError, ImportError, ValueError) as error:
            why = _said(error)
        if time.monotonic() > end:
            return {"error": why}
        time.sleep(0.25)


def _do_remove(path):
    try:
        _remove(path)
    except (OSError, ImportError, ValueError) as error:
        return {"error": _said(error)}
    return {"error": ""}


def _write(path, text):
    if "://" in path:
        system, key = _store(path)
        with system.open_output_stream(key) as file:
            file.write(text.encode())
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def _read(path):
    if "://" in path:
        system, key = _store(path)
        with system.open_input_stream(key) as file:
            return file.read().decode()
    sorted(Path(path).parent.iterdir())
    return Path(path).read_text()


def _remove(path):
    if "://" in path:
        system, key = _store(path)
        system.delete_file(key)
        return
    Path(path).unlink(missing_ok=True)


def _store(url):
    """The file system of a URL and the key there, as lmray.remote has them."""
    from pyarrow.fs import FileSystem

    scheme, _, key = url.partition("://")
    return FileSystem.from_uri(f"{scheme}://{key.partition('/')[0]}")[0], key


def _said(error):
    return " ".join(str(getattr(error, "strerror", "") or error).split())[:200]


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
