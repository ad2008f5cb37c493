"""`lmray cluster`: is a cluster fit to be started, and what does a running one do?"""

from pathlib import Path
from typing import Annotated

import typer

from lmray.cli.options import Json

app = typer.Typer(help="Look at a cluster before and while it runs.", no_args_is_help=True)


@app.command()
def check(
    cluster: Annotated[Path, typer.Argument(help="A cluster's YAML, as for `ray up`.")],
    root: Annotated[
        str,
        typer.Option(
            envvar="LMRAY_ROOT", help="Folder that all nodes must share; tried by a probe file."
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Look for what would make `ray up` or a sweep fail, before anything costs money; 3 if so.

    The YAML by Ray's schema, what it opens to the world, token and ssh key; then, on each host a
    provider of type local names: ssh, versions of Python, Ray and lmray, clock, GPUs, ports,
    shared storage. Nothing is started.
    """
    import lmray.distributed  # noqa: F401 - sets Ray's environment
    from lmray.cli.show import err, out, result
    from lmray.distributed.cluster_check import check_cluster

    err.print(f"checking {cluster} ...", markup=False)
    findings = check_cluster(cluster, root)
    if json:
        result([finding.as_json() for finding in findings], "", as_json=True)
    else:
        for finding in findings:
            mark = "ok  " if finding.ok else "FAIL"
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            line = f"{mark} {finding.what:<8} {finding.found}{remedy}"
            out.print(line, markup=False, soft_wrap=True)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(3)
