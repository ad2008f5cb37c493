"""Token shards: write, read and verify them; the stateless batch sampler."""

from lmray.dataset.build import SHARD_BYTES, RunTasks, ShardTask, build, make_shard, run_here
from lmray.dataset.manifest import Manifest, ShardRow, read_manifest
from lmray.dataset.sampler import BatchSampler, get_batch
from lmray.dataset.tokens import Splits, TokenDataset, open_split, open_splits

__all__ = [
    "SHARD_BYTES",
    "BatchSampler",
    "Manifest",
    "RunTasks",
    "ShardRow",
    "ShardTask",
    "Splits",
    "TokenDataset",
    "build",
    "get_batch",
    "make_shard",
    "open_split",
    "open_splits",
    "read_manifest",
    "run_here",
]
