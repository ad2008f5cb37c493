"""Hours and dollars of a cluster of n nodes, from what one node was measured to do.

    python scripts/cluster_cost.py --nodes 1 4 16 64

Encoding: docs/benchmarks.md has how long two cores took to count, learn from and encode two
gigabytes, and at what share of that speed Ray Data ran. A sweep: lmray's price of base_ts to its
whole budget, at a share of a device's peak. What was not measured is an option; prices change.
"""

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lmray.accounting import peak_flops, training_flops
from lmray.corpus.named import NAMED
from lmray.presets import base_ts
from lmray.sweeps.price import Price, price
from lmray.sweeps.space import Asha, Space

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks.md"
MEASURED_BYTES, MEASURED_CORES = 2e9, 2
SHARD_BYTES, SHARDS_PER_TASK = 4 << 20, 16
"""As lmray.dataset cuts and lmray.distributed.data groups them."""


@dataclass(frozen=True)
class Measured:
    """Seconds that two cores took for two gigabytes, and how Ray Data compares."""

    count_s: float
    merge_s: float
    encode_s: float
    ray_start_s: float
    ray_share: float
    """Of the speed of plain processes."""

    @classmethod
    def read(cls, text: str) -> "Measured":
        """What the page of benchmarks says."""

        def seconds(way: str, column: int) -> float:
            rows = [line for line in text.splitlines() if line.startswith(f"| 2,000 | {way} |")]
            return median(float(row.split("|")[column].strip(" s")) for row in rows)

        share = re.search(r"median (0\.\d+)", text)
        if share is None:
            raise SystemExit(f"{BENCHMARKS} has no median of Ray Data's share any more")
        return cls(
            count_s=seconds("processes", 5),
            merge_s=seconds("processes", 6),
            encode_s=seconds("processes", 7),
            ray_start_s=seconds("ray", 4),
            ray_share=float(share[1]),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--start-minutes", type=float, default=8, help="of a node, paid for")
    parser.add_argument("--head-price", type=float, default=0.192, help="$ an hour: m6i.xlarge")
    data = parser.add_argument_group("encoding")
    data.add_argument("--gb", type=float, default=825, help="of text: the Pile")
    data.add_argument("--cores", type=int, default=16, help="of a node")
    data.add_argument("--cpu-price", type=float, default=0.768, help="$ an hour: m6i.4xlarge")
    data.add_argument("--storage-mb", type=float, default=1000, help="MB/s a node reads and writes")
    data.add_argument("--task-ms", type=float, default=20, help="of the driver for a Ray Data task")
    sweep = parser.add_argument_group("sweep")
    sweep.add_argument("--trials", type=int, default=64)
    sweep.add_argument("--device", default="L40S", help="one a node")
    sweep.add_argument("--mfu", type=float, default=0.25, help="share of its bf16 peak")
    sweep.add_argument("--gpu-price", type=float, default=1.861, help="$ an hour: g6e.xlarge")
    asked = parser.parse_args()
    show_encoding(asked, Measured.read(BENCHMARKS.read_text()))
    show_sweep(asked)


def show_encoding(asked: argparse.Namespace, measured: Measured) -> None:
    size = asked.gb * 1e9
    print(
        f"{asked.gb:g} GB of text counted and encoded on nodes of {asked.cores} cores at "
        f"${asked.cpu_price:g} an hour, beside a head at ${asked.head_price:g}:\n"
    )
    rows = []
    for nodes in asked.nodes:
        share = measured.ray_share if nodes > 1 else 1.0
        pace = MEASURED_BYTES / MEASURED_CORES * asked.cores * share
        # Counting reads the text; encoding reads it and writes two bytes for some four of it.
        at_work = sum(
            size / nodes / min(asked.storage_mb * 1e6 / moved, pace / seconds)
            for seconds, moved in ((measured.count_s, 1.0), (measured.encode_s, 1.5))
        )
        alone = measured.merge_s
        if nodes > 1:
            tasks = size / SHARD_BYTES / SHARDS_PER_TASK
            alone += 2 * (measured.ray_start_s + tasks * asked.task_ms / 1000)
        rows.append(row(nodes, at_work + alone, asked, asked.cpu_price, needed_s=at_work * nodes))
    show(rows)


def show_sweep(asked: argparse.Namespace) -> None:
    run = base_ts()
    rates = [10 ** (-4 + 3 * i / asked.trials) for i in range(asked.trials)]
    # As tune_spaces/learning_rate.py: four rungs, of which half pass.
    asha = Asha(grace_tokens=2 * run.evaluation.interval_tokens, reduction_factor=2)
    space = Space("full", "", run, {"optim.lr": rates}, (0,), asha)
    peak = peak_flops(asked.device, "bf16")
    if peak is None:
        raise SystemExit(f"no peak is known for {asked.device}")
    length = run.model.context_length
    tokens_per_s = peak * asked.mfu * length / training_flops(run.model, length)
    valid = NAMED["tinystories"].files[1].bytes
    assert isinstance(valid, int)
    found = price(space, valid // 4, tokens_per_s=tokens_per_s, at_once=1)
    share = trained_share(asha.rungs(run.budget.tokens), run.budget.tokens, asha.reduction_factor)
    print(
        f"\n{asked.trials} trials of base_ts, {found.tokens:,} tokens, {found.flops:.3g} FLOP, on "
        f"nodes of one {asked.device} at ${asked.gpu_price:g} an hour, {asked.mfu:.0%} of its peak "
        f"({tokens_per_s:,.0f} tokens/s):\n"
    )
    show([sweep_row(nodes, found, asked) for nodes in asked.nodes])
    print(
        f"\nWith the rungs of the space learning_rate, of which half pass, {share:.0%} of the "
        f"tokens are trained; where idle nodes are given back, so much of the node-hours is paid."
    )


def sweep_row(nodes: int, found: Price, asked: argparse.Namespace) -> list[str]:
    alone = found.hours * 3600 / found.trials
    waves = math.ceil(found.trials / nodes)
    return row(nodes, waves * alone, asked, asked.gpu_price, needed_s=found.trials * alone)


def trained_share(rungs: Sequence[int], budget: int, factor: int) -> float:
    """Of a sweep's tokens, if one in `factor` passes each rung."""
    ends = [*rungs, budget]
    stretches = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return sum(tokens / factor**rung for rung, tokens in enumerate(stretches)) / budget


def row(
    nodes: int, seconds: float, asked: argparse.Namespace, dollars: float, *, needed_s: float
) -> list[str]:
    """Nodes, hours, node-hours, dollars, and the share of the node-hours that is needed work."""
    hours = seconds / 3600 + asked.start_minutes / 60
    cost = hours * (nodes * dollars + (asked.head_price if nodes > 1 else 0))
    busy = needed_s / 3600 / (nodes * hours)
    return [str(nodes), f"{hours:,.2f}", f"{nodes * hours:,.1f}", f"{cost:,.2f}", f"{busy:.0%}"]


def show(rows: list[list[str]]) -> None:
    print("| nodes | hours | node-hours | dollars | busy |\n|---|---|---|---|---|")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
