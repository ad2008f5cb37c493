"""Whether this machine and each host of a cluster will show Ray the same token; none is printed."""

import hashlib
import os
import secrets
from typing import Any

from lmray.distributed.cluster_finding import Finding
from lmray.distributed.cluster_yaml import TOKEN_FILE, ClusterYaml
from lmray.distributed.jobs import auth_token
from lmray.errors import PreflightError

SALT = secrets.token_hex(16)
"""With it a hash of a token says nothing to who sees it."""

_MOUNT_IT = f"mount the file that you use here: file_mounts: {{{TOKEN_FILE}: {TOKEN_FILE}}}"


def _commands(cluster: ClusterYaml) -> str:
    setup = cluster.config.get("setup_commands", [])
    return "\n".join([cluster.head_start, cluster.worker_start, *setup])


def wants_no_token(cluster: ClusterYaml) -> bool:
    """Whether the cluster, or this machine's environment, says that none is to be shown."""
    here = os.environ.get("RAY_AUTH_MODE") == "disabled"
    return here or "RAY_AUTH_MODE=disabled" in _commands(cluster)


def token_here(cluster: ClusterYaml) -> Finding:
    """Whether there is one here, and the file that `ray up` copies has the same."""
    if wants_no_token(cluster):
        return Finding("token", True, "the cluster asks for none")
    mounted = cluster.token_mount
    try:
        token = auth_token("the cluster")
        other = mounted is not None and mounted.read_text().strip() != token
    except PreflightError as error:
        return Finding(
            "token", False, str(error).partition("; ")[0], "`ray get-auth-token --generate`, once"
        )
    except OSError:
        return Finding("token", False, f"{mounted} of file_mounts is not there", _MOUNT_IT)
    if other:
        return Finding(
            "token", False, f"{mounted} of file_mounts is not the token shown from here", _MOUNT_IT
        )
    return Finding("token", True, "there is one here")


def tokens_there(cluster: ClusterYaml, facts: dict[str, dict[str, Any]]) -> list[Finding]:
    """Whether each host will show the token shown from here, once `ray up` has copied what it does.

    With a host that does not, `ray up` succeeds and its worker never joins.
    """
    here = hashlib.sha256((SALT + auth_token("the cluster")).encode()).hexdigest()
    findings = []
    for host, found in facts.items():
        copied = cluster.token_mount is not None and not found["token_from"]
        if not copied and found["token"] != here:
            what = "another token than here" if found["token"] else "no token"
            named = f" ({found['token_from']})" if found["token_from"] else ""
            remedy = f"unset {found['token_from']} there" if named else _MOUNT_IT
            findings.append(Finding("token", False, f"{host} has {what}{named}", remedy))
        if found["auth_mode"] != "token" and "RAY_AUTH_MODE=token" not in _commands(cluster):
            what = f"{host}: RAY_AUTH_MODE is {found['auth_mode'] or 'not set'} in a login"
            remedy = "export RAY_AUTH_MODE=token at the top of ~/.bashrc there"
            findings.append(Finding("token", False, what, remedy))
    return findings
