"""The rim: the only rooms that import Ray. Adapters around rooms that know nothing of it.

Ray reads part of its environment once, when it is imported, so what lmray wants of it is set here;
where somebody has imported Ray already, their environment holds.
"""

import os
import sys

if "ray" not in sys.modules:
    # Explicit, because Ray's own tools differ in what they assume. A cluster that asks for no token
    # is joined with RAY_AUTH_MODE=disabled.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray Train asks its workers for news every two seconds, an age for a short run.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    # Ray Tune gives the thread of an actor's last job two seconds to end, too few where all stall.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")
