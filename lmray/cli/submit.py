"""`lmray submit`: a command of this project, run on a cluster with the project's tracked files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmray.cli.options import Dashboard
from lmray.errors import UsageError
from lmray.remote import SCHEMES

if TYPE_CHECKING:
    from lmray.distributed.package import Package

_ROOTLESS = ("doctor", "account", "--version", "--help")
"""Verbs that leave nothing beneath a root."""


def submit(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND...", help="As in: lmray sweep run learning_rate"),
    ] = None,
    address: Dashboard = "",
    cluster: Annotated[
        Path | None, typer.Option(help="A cluster's YAML: its dashboard is reached through ssh.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="This machine, in a copy of the package.")
    ] = False,
    root: Annotated[
        str,
        typer.Option(envvar="LMRAY_ROOT", help="The job's LMRAY_ROOT: a folder all nodes share."),
    ] = "",
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Pass this environment variable, as in WANDB_API_KEY; repeatable."
        ),
    ] = None,
    cpus: Annotated[
        int, typer.Option(min=0, help="Run it where so many CPUs are free, not on the head.")
    ] = 0,
    gpus: Annotated[
        int, typer.Option(min=0, help="The same for GPUs, as for a lmray train of one worker.")
    ] = 0,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the job's id instead of following it.")
    ] = False,
    stop: Annotated[str, typer.Option(metavar="ID", help="Stop this job instead.")] = "",
    allow_secrets: Annotated[
        bool, typer.Option("--allow-secrets", help="Send tracked files that look like keys, too.")
    ] = False,
) -> None:
    """Run a command on a cluster with this project's tracked files; exit with its exit code.

    The files are those git tracks, as they are on disk now; they are the job's working folder, and
    its lmray is theirs if they have one. Of this machine's environment only what --env names goes
    along. Give one of --address, --cluster and --local.
    """
    import shlex

    import lmray.distributed  # noqa: F401 - sets Ray's environment
    from lmray.cli.show import err, out
    from lmray.distributed.jobs import STOP_SECONDS, reach
    from lmray.distributed.local_job import run_here
    from lmray.distributed.package import check_arguments, find_package

    source = context.get_parameter_source("address")
    if (cluster is not None or local) and source is not None and source.name == "ENVIRONMENT":
        address = ""
    if sum([bool(address), cluster is not None, local]) != 1:
        raise UsageError(
            "a job needs one place to run; give --address URL, --cluster YAML or --local"
        )
    if stop and local:
        raise UsageError(
            f"--stop {stop} is for a job of a cluster, --local has none; give --address URL or "
            f"--cluster YAML, or end the command by Ctrl-C"
        )
    if stop:
        with reach(address, cluster) as jobs:
            running = jobs.stop(stop)
        asked = f"asked to stop; it has {STOP_SECONDS} seconds to write its checkpoints"
        err.print(f"{stop}: {asked if running else 'had ended'}", markup=False)
        return
    if not command:
        raise UsageError("there is no command to run; write it after --, as in -- lmray doctor")
    if local and (detach or cpus or gpus):
        raise UsageError("--local runs the command itself; leave --detach, --cpus and --gpus out")
    here = Path.cwd()
    environment = _environment(env or []) | _root(command, root, local=local)
    package = find_package(here, allow_secrets=allow_secrets)
    check_arguments(package, here, command)
    err.print(_described(package), markup=False, soft_wrap=True)
    if local:
        raise typer.Exit(run_here(command, package, here, environment))
    with reach(address, cluster) as jobs:
        job = jobs.submit(command, package, here, environment, cpus=cpus, gpus=gpus)
        if detach:
            out.print(job, markup=False)
            return
        err.print(f"job {job}: {shlex.join(command)}", markup=False, soft_wrap=True)
        try:
            code = jobs.follow(job, lambda text: print(text, end="", flush=True))
        except KeyboardInterrupt:
            err.print(f"job {job} goes on; lmray submit --stop {job} ends it", markup=False)
            raise typer.Exit(130) from None
    raise typer.Exit(code)


def _environment(names: Sequence[str]) -> dict[str, str]:
    missing = [name for name in names if name not in os.environ]
    if missing:
        given = missing[0].partition("=")[0]
        raise UsageError(
            f"{given} is not in the environment; --env takes the name of a variable that is, so "
            f"that its value is on no command line"
        )
    return {name: os.environ[name] for name in names}


def _root(command: Sequence[str], root: str, *, local: bool) -> dict[str, str]:
    """The job's LMRAY_ROOT: what a job leaves in its working folder is lost with that."""
    if command[0] != "lmray" or (len(command) > 1 and command[1] in _ROOTLESS):
        return {"LMRAY_ROOT": root} if root else {}
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word == "--root" or word.startswith("--root="):
            root = following if word == "--root" else word.removeprefix("--root=")
            if not _lasting(root):
                raise UsageError(f"--root {root} is not absolute; {_GIVE_ROOT}")
            return {}
    if not root and local:
        root = str(Path("lmray-out").resolve())
    if not _lasting(root):
        raise UsageError(f"the job's results need a root, not {root!r}; {_GIVE_ROOT}")
    return {"LMRAY_ROOT": root}


_GIVE_ROOT = (
    "the job's own folder is lost with it: give --root an absolute path that all nodes share"
)


def _lasting(root: str) -> bool:
    return root.startswith(("/", *(f"{scheme}//" for scheme in SCHEMES)))


def _described(package: "Package") -> str:
    from lmray.cli.show import human_bytes

    largest = ", ".join(f"{name} ({human_bytes(size)})" for name, size in package.largest(3))
    text = f"package: {len(package.files)} files, {human_bytes(package.bytes)}; largest: {largest}"
    if package.untracked:
        text += f"; left out as untracked: {', '.join(package.untracked[:3])}"
        text += f" and {len(package.untracked) - 3} more" if len(package.untracked) > 3 else ""
    return text
