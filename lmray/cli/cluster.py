"""`lmray cluster`: is a cluster fit to be started, and what does a running one do?"""

from pathlib import Path
from typing import Annotated

import typer

from lmray.cli.options import Dashboard, Json

app = typer.Typer(help="Look at a cluster before and while it runs.", no_args_is_help=True)


@app.command()
def check(
    cluster: Annotated[Path, typer.Argument(help="A cluster's YAML, as for `ray up`.")],
    root: Annotated[
        str,
        typer.Option(
            envvar="LMRAY_ROOT",
            help="Folder or URL that all nodes must share; tried by a probe file.",
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Look for what would make `ray up` or a sweep fail, before anything costs money; 3 if so.

    The YAML by Ray's schema, what it opens to the world, token and ssh key; then, on each host a
    provider of type local names: ssh, token, versions of Python, Ray and what computes, clock,
    GPUs, ports between the hosts, shared storage. Nothing is started.
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


@app.command()
def status(
    cluster: Annotated[
        Path | None, typer.Argument(help="A cluster's YAML: its dashboard is reached through ssh.")
    ] = None,
    address: Dashboard = "",
    json: Json = False,
) -> None:
    """Say what a running cluster has, what is used, and what waits for what."""
    from dataclasses import asdict

    import lmray.distributed  # noqa: F401 - sets Ray's environment
    from lmray.cli.show import human_bytes, out, result, table
    from lmray.distributed.cluster_status import cluster_status
    from lmray.distributed.jobs import reach
    from lmray.errors import UsageError

    if bool(address) == (cluster is not None):
        raise UsageError("which cluster? give its YAML or --address URL")
    with reach(address, cluster) as jobs:
        found = cluster_status(jobs)
    if json:
        result(asdict(found), "", as_json=True)
        return
    rows = []
    for node in found.nodes:
        cells = [f"{node.used[kind]:g}/{node.total[kind]:g}" for kind in ("CPU", "GPU")]
        memory = "/".join(human_bytes(part["memory"]) for part in (node.used, node.total))
        state = "alive" if node.alive else "lost"
        rows.append([node.address, "head" if node.head else "worker", state, *cells, memory])
    table(["node", "kind", "state", "CPU", "GPU", "memory asked for"], rows)
    for job in found.jobs:
        out.print(f"job {job['id']} {job['status']}: {job['command']}", markup=False)
    for waiting in found.waiting:
        demand = " ".join(f"{kind}={amount:g}" for kind, amount in waiting.demand.items())
        what = f"waiting: {waiting.count} x {waiting.name} ({demand or 'nothing'})"
        out.print(f"{what}: {waiting.reason}", markup=False, soft_wrap=True)
    if not found.waiting:
        out.print("nothing waits")
