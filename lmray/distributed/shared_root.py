"""Whether a folder is the same on every node: asked of all nodes, then of each process that works.

A run that finds its root missing on another node fails late, or leaves its results there. A node
that joins once work has begun was not there to be asked, so whoever works on one looks for a file
that the driver leaves in the root.
"""

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_initialized,
    _internal_kv_put,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lmray import remote
from lmray.errors import LmrayError, PreflightError
from lmray.storage import write_bytes

_PATIENCE_SECONDS = 5.0
"""A network file system may show another node's new file a moment later."""

_ANSWER_SECONDS = 120.0

_LOST = (
    ray.exceptions.NodeDiedError,
    ray.exceptions.TaskUnschedulableError,
    ray.exceptions.WorkerCrashedError,
)
"""A node that goes away while it is asked has no say."""

_WAYS = (
    "(1) give a --root that is mounted on all nodes, or a URL (s3://, gs://) that all may read and "
    "write, (2) mount that path on them, to be written to (NFS, EFS, Lustre ...), or (3) leave out "
    "--address and RAY_ADDRESS to use this machine alone"
)


@contextmanager
def shared(root: Path) -> Iterator[None]:
    """Refuses a folder that some node of the Ray session does not share with this process.

    In the block `require_shared` refuses it in processes, of nodes that joined later, too.

    Raises PreflightError, with the ways out, if a node does not see a file written here, cannot
    write one beside it or does not answer.
    """
    _ask_all(root)
    # A URL is the same from everywhere, and whoever cannot reach it says so.
    if remote.url(root):
        yield
        return
    token = root.resolve() / f".lmray-shared-{secrets.token_hex(8)}"
    write_bytes(token, b"")
    _internal_kv_put(_key(), str(token).encode())
    try:
        yield
    finally:
        if ray.is_initialized():
            _internal_kv_del(_key())
        token.unlink(missing_ok=True)


def require_shared() -> None:
    """Refuses to work on a node that does not share the folder which the driver's session names.

    Raises PreflightError, with the ways out, there and nowhere else.
    """
    named = _internal_kv_get(_key()) if _internal_kv_initialized() else None
    if named is None:
        return
    token = Path(named.decode())
    here = ray.util.get_node_ip_address()
    if not _soon(token.exists):
        raise PreflightError(
            f"{token.parent} is not shared: {here}, which joined later, does not see a file the "
            f"driver wrote to it; {_WAYS}"
        )
    try:
        with tempfile.TemporaryFile(dir=token.parent):
            pass
    except OSError as error:
        raise PreflightError(
            f"{token.parent} is not shared: {here}, which joined later, cannot write to it "
            f"({error.strerror}); {_WAYS}"
        ) from error


def require_seen(files: Sequence[Path]) -> None:
    """Refuses files of which some node of the Ray session has none, or others.

    Raises PreflightError, with the remedy.
    """
    sizes = {str(path.resolve()): path.stat().st_size for path in files}
    for address, missing in _answers(_lacks, sizes).items():
        if missing:
            raise not_seen(missing, address)


def not_seen(path: Path | str, address: str) -> PreflightError:
    """What to say of a file that tasks read where it is not."""
    return PreflightError(
        f"{path} is not there on {address}, or is another file: text is read where it lies; put it "
        f"at that path on all nodes, into a folder they share, or leave out --address and "
        f"RAY_ADDRESS to use this machine alone"
    )


def _key() -> bytes:
    """Where this driver's processes, and no other driver's, find the file's name."""
    return f"lmray-shared-{ray.get_runtime_context().get_job_id()}".encode()


def _ask_all(root: Path) -> None:
    # Hidden files of a cache are not for others.
    dot = "" if remote.url(root) else "."
    probe = root.resolve() / f"{dot}lmray-probe-{secrets.token_hex(8)}"
    text = secrets.token_bytes(16)
    write_bytes(probe, text)
    try:
        remote.publish(probe)
        answers = _answers(_tries, str(probe), text)
    finally:
        probe.unlink(missing_ok=True)
        remote.remove(probe)
    for wrong in ("did not see a file the driver wrote to it", "could not write to it"):
        if found := [address for address, answer in answers.items() if answer == wrong]:
            raise PreflightError(
                f"{root.resolve()} is not shared: {_named(found)} (of {len(answers)} nodes) "
                f"{wrong}; {_WAYS}"
            )


def _answers(question: Any, *arguments: Any) -> dict[str, str]:
    """What each other node answers, by its address; none, for a driver on the only node there is.

    Raises PreflightError if one keeps silent.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    # On a machine of one's own the driver's disk is every task's disk.
    if nodes.keys() == {ray.get_runtime_context().get_node_id()}:
        return {}
    asked = {
        question.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(*arguments): f"{address}"
        for node, address in nodes.items()
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)
    if silent:
        raise PreflightError(
            f"{_named([asked[task] for task in silent])} did not say within {_ANSWER_SECONDS:g} s "
            f"whether it shares this machine's files; `lmray cluster status` says what it waits for"
        )
    found: dict[str, str] = {}
    for task in answered:
        # Several nodes may have one address, on one machine.
        found[asked[task]] = found.get(asked[task]) or _answer(task)
    return found


def _named(addresses: list[str]) -> str:
    shown = ", ".join(sorted(addresses)[:3])
    return shown if len(addresses) <= 3 else f"{shown} and {len(addresses) - 3} more"


def _answer(task: ray.ObjectRef) -> str:
    try:
        return ray.get(task)
    except _LOST:
        return ""


@ray.remote(num_cpus=0, max_retries=0)
def _tries(path: str, text: bytes) -> str:
    """What is wrong with the driver's file, and with writing another one beside it."""
    place = remote.cached(path)

    def read() -> bool:
        remote.refresh(place)
        return place.read_bytes() == text

    if not _soon(read):
        return "did not see a file the driver wrote to it"
    mine = place.with_name(f"{place.name}-{ray.get_runtime_context().get_node_id()}")
    try:
        write_bytes(mine, text)
        remote.publish(mine)
        mine.unlink()
        remote.remove(mine)
    except (OSError, LmrayError):
        return "could not write to it"
    return ""


@ray.remote(num_cpus=0, max_retries=0)
def _lacks(sizes: dict[str, int]) -> str:
    """The first of the files that is not here, or not as long."""
    for path, size in sizes.items():
        if not _soon(lambda path=path, size=size: Path(path).stat().st_size == size):
            return path
    return ""


def _soon(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            if true():
                return True
        except (OSError, LmrayError):
            pass
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
