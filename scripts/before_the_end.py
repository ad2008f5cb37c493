"""Before this host ends: what trains here writes its checkpoint and leaves, then Ray does.

    python before_the_end.py            now: a pod's preStop, a systemd unit's ExecStop
    python before_the_end.py --watch    once AWS says that it takes this spot machine back

Ray's own processes end at once when they are told, and their workers with them. So Ray is asked to
start nothing more here, where a trial that has left would come back; what trains is told (SIGTERM);
`ray stop` comes when it has left. Needs Linux, Python and `ray` on the PATH.

LMRAY_METADATA_URL  where the machine's metadata are asked for (http://169.254.169.254)
"""

import argparse
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

WORKERS = re.compile(r"ray::\S*RayTrainWorker\b")
"""Titles of a run's several workers."""

TRIALS = re.compile(r"ray::(ImplicitFunc|NamedJob)\b")
"""Titles of trials: those that train by themselves, and those that only drive workers."""

_LOOK_S = 0.5
_ASK_S = 5.0
"""As AWS recommends; its notice comes two minutes ahead."""

_RAY_S = 30.0

# A proxy of the environment is for the world, not for the machine's own metadata.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> None:
    parser = argparse.ArgumentParser(description="End Ray on this host, checkpoints first.")
    parser.add_argument("--watch", action="store_true", help="wait for AWS's notice before it")
    if parser.parse_args().watch:
        await_notice(os.environ.get("LMRAY_METADATA_URL", "http://169.254.169.254"))
    leave()


def await_notice(metadata: str) -> None:
    """Returns once the metadata service at this URL has a notice for this machine."""
    trouble = ""
    say(f"watching {metadata}")
    while True:
        before = trouble
        try:
            if text := notice(metadata):
                say(f"notice: {text}")
                return
            trouble = ""
        except OSError as error:
            trouble = f"no answer from {metadata}: {error}"
        if trouble not in ("", before):
            say(trouble)
        time.sleep(_ASK_S)


def notice(metadata: str) -> str:
    """AWS's notice to a spot machine, empty if there is none; in version 2 of its protocol.

    Raises OSError if nobody answers.
    """
    ask = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _answer(f"{metadata}/latest/api/token", ask, "PUT")
    try:
        show = {"X-aws-ec2-metadata-token": token}
        return _answer(f"{metadata}/latest/meta-data/spot/instance-action", show, "GET")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return ""
        raise


def _answer(url: str, headers: dict[str, str], method: str) -> str:
    request = urllib.request.Request(url, headers=headers, method=method)
    with _OPENER.open(request, timeout=5) as response:
        return response.read().decode().strip()


def leave() -> None:
    """Has what trains here leave with a checkpoint, then ends Ray on this host."""
    begun = time.monotonic()
    for raylet in processes(re.compile(r"\S*/raylet ")).values():
        drain(raylet)
    # A trial with workers only drives them: it must not end before they have their checkpoint.
    told = {process for process in processes(WORKERS) or processes(TRIALS) if tell(process)}
    say(f"told {len(told)} to write a checkpoint")
    titles = re.compile(f"{WORKERS.pattern}|{TRIALS.pattern}")
    while told & processes(titles).keys():
        time.sleep(_LOOK_S)
    say(f"they have left after {time.monotonic() - begun:.1f} s; ray stop")
    ray("stop")


def tell(process: int) -> bool:
    """Sends SIGTERM; whether the process is there and ours."""
    try:
        os.kill(process, signal.SIGTERM)
    except OSError:
        return False
    return True


def drain(raylet: str) -> None:
    """Has Ray start nothing more on the node of this raylet; what runs there runs on."""
    options = {"node_id": "--node-id", "gcs-address": "--address"}
    found = re.findall(r"--(node_id|gcs-address)=(\S+)", raylet)
    where = [f"{options[name]}={value}" for name, value in found]
    why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "this host will end"]
    ray("drain-node", *where, *why)


def ray(*words: str) -> None:
    """Runs a command of Ray's; one that fails is no reason not to tell what trains."""
    try:
        subprocess.run(["ray", *words], timeout=_RAY_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        say(str(error))


def processes(command: re.Pattern[str]) -> dict[int, str]:
    """Processes of this host by id whose command line, or title, begins so."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if command.match(line):
            found[int(folder.name)] = line
    return found


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
