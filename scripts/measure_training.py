"""lmray's own training step on a device: its speed, its memory, its largest costs.

    python scripts/measure_training.py --preset base_ts a_ts a_owt_tied --batch-size 128 256 \
        --precision bf16 --compile default --device cuda --steps 30

Each preset is trained at each batch size as `lmray train` does it (`Worker.take_step`), but for
evaluations, records and checkpoints, on tokens that are drawn. After steps to warm up come three
stretches of --steps, the device waited for at their ends only: tokens/s are their median, smallest
and largest, TFLOP/s and MFU by `lmray.accounting`. Peak memory is what torch held of a GPU, or all
of this process on a CPU, where rows before count. Costs are the three largest of three more steps
by torch's profiler: a GPU's kernels, a CPU's operators in all threads, by their own time.

--compare-fp32 N trains N steps in --precision, in fp32 alike, and in fp32 from two more seeds: what
precision changes of the loss on the same validation windows, beside the spread of the three seeds.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from drawn_tokens import drawn_tokens
from measured_steps import PROFILED, STRETCHES, Facts, Training, costs, speed

from lmray.config import Run, override, parse_assignments
from lmray.dataset import Splits
from lmray.errors import LmrayError
from lmray.machine import freed_memory_kept
from lmray.presets import PRESETS
from lmray.training.device import device_name, resolve_device

NO_MEMORY = re.compile("can't allocate memory|CUDA error: out of memory|ALLOC_FAILED")
"""How torch says it in errors without a class of their own."""


def compared(run: Run, splits: Splits) -> Facts:
    def loss(precision: str, seed: int) -> float:
        training = Training(override(run, {"optim.precision": precision, "seed": seed}), splits)
        training.take(run.steps)
        found = training.worker.validate("prefix")["loss"]
        if found is None:
            raise LmrayError(f"diverged in {precision}, seed {seed}")
        return found

    asked = loss(run.optim.precision, run.seed)
    fp32 = [loss("fp32", run.seed + more) for more in range(3)]
    spread = max(fp32) - min(fp32)
    return {"steps": run.steps, "loss": asked, "fp32_loss": fp32[0], "fp32_spread": spread}


def attempt(work: Callable[[], Facts]) -> Facts:
    """What `work` finds, or why it failed: no memory, divergence."""
    try:
        return work()
    except LmrayError as error:
        return {"failed": str(error)}
    except (RuntimeError, MemoryError) as error:
        typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not typed and not NO_MEMORY.search(str(error)):
            raise
        return {"failed": "out of memory"}


def row(run: Run, splits: Splits, arguments: argparse.Namespace) -> Facts:
    def of_steps(steps: int) -> Run:
        return override(run, {"budget.tokens": steps * run.batches.shape(0).tokens})

    def measured() -> Facts:
        steps = arguments.warm_up + STRETCHES * arguments.steps + PROFILED
        training = Training(of_steps(steps), splits)
        training.take(arguments.warm_up)
        found = speed(training, arguments.steps)
        return found if arguments.no_profile else found | {"costs": costs(training)}

    facts = attempt(measured)
    if steps := arguments.compare_fp32:
        facts["compared"] = attempt(lambda: compared(of_steps(steps), splits))
    return facts


def told(row: Facts) -> str:
    lines = [f"{row['preset']}, batch of {row['batch_size']}"]
    if "failed" in row:
        lines[0] += f": {row['failed']}"
    else:
        low, high = row["slowest_and_fastest"]
        mfu = "" if row["mfu"] is None else f", MFU {row['mfu']:.1%}"
        lines[0] += (
            f": {row['parameters']:,} parameters, {row['tokens_per_step']:,} tokens a step, "
            f"{row['tokens_per_s']:,.0f} tokens/s ({low:,.0f} to {high:,.0f}), "
            f"{row['tflop_per_s']:.3g} TFLOP/s{mfu}, peak {row['peak_memory_bytes'] / 1e9:.2f} GB, "
            f"micro-batch {row['micro_batch']}, compiled in {row['compile_s']:.0f} s"
        )
    lines += [f"  {cost['share']:6.1%}  {cost['name']}" for cost in row.get("costs", [])]
    if found := row.get("compared"):
        lines.append(
            f"  comparison with fp32: {found['failed']}"
            if "failed" in found
            else f"  after {found['steps']} steps validation loss {found['loss']:.5f}, fp32 "
            f"{found['fp32_loss']:.5f}, difference {found['loss'] - found['fp32_loss']:+.5f}; "
            f"fp32 over three seeds spreads {found['fp32_spread']:.5f}"
        )
    return "\n".join(lines)


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=["base_ts"])
    parser.add_argument("--batch-size", nargs="+", type=positive, help="sequences, or the preset's")
    parser.add_argument("--precision", default="bf16", help="as optim.precision")
    parser.add_argument("--compile", default="off", help="as execution.compile")
    parser.add_argument("--device", default="auto", help="as execution.device")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for all runs")
    parser.add_argument("--warm-up", type=positive, default=5, help="steps before those timed")
    parser.add_argument("--steps", type=positive, default=10, help="of each of three stretches")
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--compare-fp32", type=int, default=0, metavar="N", help="steps")
    parser.add_argument("--json", action="store_true", help="one object, at the end")
    arguments = parser.parse_args()
    changes = {
        "optim.precision": arguments.precision,
        "execution.compile": arguments.compile,
        "execution.device": arguments.device,
        **parse_assignments(arguments.set),
    }
    rows, datasets = [], {}
    try:
        runs = {name: override(PRESETS[name](), changes) for name in arguments.preset}
        device = device_name(resolve_device(next(iter(runs.values())).execution.device))
    except LmrayError as error:
        sys.exit(f"{error}")
    about = {"device": device, "torch": torch.__version__, **changes}
    if not arguments.json:
        print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="lmray-measure-") as folder, freed_memory_kept():
        for name, base in runs.items():
            vocab_size = base.model.vocab_size
            if vocab_size not in datasets:
                datasets[vocab_size] = drawn_tokens(vocab_size, Path(folder) / str(vocab_size))
            for size in arguments.batch_size or [base.data.batch_size]:
                tokens = size * base.model.context_length  # a budget with room for one step
                run = override(base, {"data.batch_size": size, "budget.tokens": tokens})
                found = row(run, datasets[vocab_size], arguments)
                rows.append({"preset": name, "batch_size": size} | found)
                if not arguments.json:
                    print(told(rows[-1]), flush=True)
    if arguments.json:
        print(json.dumps(about | {"rows": rows}))


if __name__ == "__main__":
    main()
