"""The rim: the only rooms that import Ray. Adapters around rooms that know nothing of it.

Ray reads part of its environment once, when it is imported, so what lmray wants of it is set here.
"""

import os

# Explicit, because Ray's tools differ in what they assume; a cluster without tokens needs RAY_AUTH_MODE=disabled.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray Train asks its workers for news every two seconds, an age for a short run.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
