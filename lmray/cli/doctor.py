"""`lmray doctor`: is this machine ready, and what will lmray use of it?"""

from typing import Annotated, Any

import typer

from lmray.cli.options import DEFAULT_ROOT, Json, Root


def doctor(
    start_ray: Annotated[
        bool, typer.Option("--ray/--no-ray", help="Start a local Ray and run a task on it.")
    ] = True,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Check this machine: Python, packages, cores, memory, GPU, disk, a local Ray."""
    from lmray.cli.show import err, out, result

    err.print("checking ..." if not start_ray else "checking, and starting Ray for a moment ...")
    checks = [_python(), *_packages(), _cores(), _memory(), _gpu(), _disk(root)]
    if start_ray:
        checks.append(_ray())
    if json:
        result(checks, "", as_json=True)
    else:
        for check in checks:
            mark = "[green]ok[/green]  " if check["ok"] else "[red]FAIL[/red]"
            out.print(f"{mark} {check['what']:<12} {check['found']}", soft_wrap=True)
    if not all(check["ok"] for check in checks):
        raise typer.Exit(1)


def _check(what: str, ok: bool, found: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "found": found}


def _python() -> dict[str, Any]:
    import platform
    import sys

    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    remedy = "" if fits else "; lmray needs 3.11 to 3.13"
    return _check("python", fits, f"{platform.python_version()} at {sys.executable}{remedy}")


def _packages() -> list[dict[str, Any]]:
    """Every required package, against the version range lmray declares."""
    from importlib import metadata

    from packaging.requirements import Requirement

    checks = []
    for text in metadata.requires("lmray") or []:
        needed = Requirement(text)
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            checks.append(_check(needed.name, False, f"missing; pip install '{needed}'"))
            continue
        fits = needed.specifier.contains(version, prereleases=True)
        remedy = "" if fits else f"; pip install '{needed}'"
        checks.append(_check(needed.name, fits, version + remedy))
    return checks


def _cores() -> dict[str, Any]:
    from lmray.threads import available_cores

    return _check("cores", True, str(available_cores()))


def _memory() -> dict[str, Any]:
    import os

    from lmray.cli.show import human_bytes

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    enough = total >= 3e9
    remedy = "" if enough else "; Ray and PyTorch want 3 GB"
    return _check("memory", enough, human_bytes(total) + remedy)


def _gpu() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return _check("gpu", True, "none; training uses the CPU")
    return _check("gpu", True, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")


def _disk(root: Any) -> dict[str, Any]:
    import shutil

    from lmray.cli.show import human_bytes

    folder = root.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    enough = free >= 1e9
    return _check(
        "disk", enough, f"{human_bytes(free)} free at {folder}" + ("" if enough else "; want 1 GB")
    )


def _ray() -> dict[str, Any]:
    from lmray.distributed.cluster import probe

    try:
        return _check("local ray", True, probe())
    except Exception as error:
        return _check(
            "local ray", False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        )
