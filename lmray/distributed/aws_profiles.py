"""Instance profiles of a cluster on AWS: what its nodes may do, such as use the bucket of --root.

Ray makes one for a head that has none (EC2 and S3), and none for workers; and a head whose role has
no iam:PassRole, as Ray's has not, cannot start workers that are to have one
(ray.autoscaler._private.aws.config).
"""

import re
from collections.abc import Iterator
from typing import Any

_NAME = "name a profile that may use the bucket of --root, the head's also EC2 and iam:PassRole"
_FILL_IN = re.compile("FILL-IN")
_WHERE = "available_node_types.{}.node_config.IamInstanceProfile"


def unfit_profiles(config: dict[str, Any], root: str) -> Iterator[tuple[str, str]]:
    """What would keep nodes from starting, or from the bucket of `root`; remedies.

    Nothing for other providers than AWS.
    """
    if config["provider"]["type"] != "aws":
        return
    types = config.get("available_node_types", {})
    profiles = {
        name: node_type.get("node_config", {}).get("IamInstanceProfile", {})
        for name, node_type in types.items()
    }
    head = config.get("head_node_type", "")
    for name, profile in profiles.items():
        where = _WHERE.format(name)
        for said in filter(_FILL_IN.search, map(str, profile.values())):
            yield (
                f"{where} is still to be filled in ({said})",
                f"{_NAME}; or delete both, and mount storage",
            )
        if not profile and name != head and root.startswith("s3://"):
            yield f"{where} is missing, so these nodes may not use {root}", _NAME
    if not profiles.get(head) and any(profiles.values()):
        where = _WHERE.format(head)
        yield f"{where} is missing, and the role that Ray makes may not give workers theirs", _NAME
