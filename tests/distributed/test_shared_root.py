"""A root that a node does not share, or may only read, and text that it lacks, are refused.

The nodes are Rays in mount namespaces of this machine: one has an empty folder in the place of the
driver's, one has that folder, to be read only.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("unshare") or os.geteuid() != 0, reason="needs Linux and root"
    ),
]

DRIVER = """
import json, os, subprocess, sys, time
from pathlib import Path
import lmray.distributed
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from lmray.cli.tokenizer import train_tokenizer
from lmray.corpus import ByteRange, Corpus
from lmray.corpus.sampling import DocumentSample
from lmray.distributed.cluster import ray_session
from lmray.distributed.data import count_ranges
from lmray.distributed.shared_root import require_seen, require_shared
from lmray.errors import PreflightError
from lmray.progress import silent
from lmray.tokenizer import END_OF_TEXT, GPT2_PATTERN
from lmray.tokenizer.build import Recipe
from lmray.tokenizer.corpus_counts import CountRule

root = Path(sys.argv[1])
text = root / "text.txt"
text.write_text("a word or two" * 100)
said = {}

def asked(name, question):
    try:
        question()
        said[name] = ""
    except PreflightError as error:
        said[name] = str(error)

def node(mount, resource):
    before = {each["NodeID"] for each in ray.nodes()}
    words = f"{sys.executable} -m ray.scripts.scripts start --address={cluster.address} --block"
    words += f" --num-cpus=1 --object-store-memory=100000000 --resources='{{\\"{resource}\\": 1}}'"
    log = open(root.parent / f"{resource}.log", "wb")
    process = subprocess.Popen(
        ["unshare", "--mount", "bash", "-c", f"{mount} && exec {words}"], stdout=log, stderr=log
    )
    until = time.monotonic() + 60
    while not [each for each in ray.nodes() if each["Alive"] and each["NodeID"] not in before]:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.2)
    return process

def on(resource):
    return lambda: ray.get(joined.options(resources={resource: 1}).remote())

@ray.remote(num_cpus=0, max_retries=0)
def joined():
    require_shared()

def count():
    rule = CountRule(GPT2_PATTERN, (END_OF_TEXT,), DocumentSample(1.0, seed=1), memory=1 << 30)
    end = text.stat().st_size
    halves = [ByteRange(str(text), 0, end // 2), ByteRange(str(text), end // 2, end)]
    count_ranges(2)(halves, rule, silent)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "resources": {"good": 1}})
read_only = f"mount --bind {root} {root} && mount -o remount,ro,bind {root}"
others = []
try:
    with ray_session(cluster.address, shared=root):
        asked("good joined", on("good"))
        others.append(node(read_only, "only"))
        asked("only joined", on("only"))
        asked("only text", lambda: require_seen([text]))
        others.append(node(f"mount -t tmpfs none {root}", "blind"))
        asked("blind joined", on("blind"))
        asked("blind text", lambda: require_seen([text]))
        others[0].terminate()
        asked("blind counts", count)
    left = sorted(path.name for path in root.iterdir())

    def begin():
        with ray_session(cluster.address, shared=root):
            pass

    corpus, recipe = Corpus("text", (text,), ()), Recipe(300)
    asked("blind trains", lambda: train_tokenizer(
        corpus, root, "new", recipe, 2, cluster.address, silent, memory=1 << 30
    ))
    others[1].terminate()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    others.append(node(read_only, "only"))
    ray.shutdown()
    asked("only begun", begin)
finally:
    for each in others:
        each.terminate()
        each.wait()
    cluster.shutdown()
print(json.dumps([said, left]))
"""


def test_nodes_that_are_there_and_nodes_that_join_later_must_share_root_and_text(tmp_path: Path):
    root = tmp_path / "root"
    root.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(root)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"RAY_AUTH_TOKEN": "a-token"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, left = json.loads(done.stdout.splitlines()[-1])
    unseen, unwritten = "does not see a file the driver wrote", "cannot write to it (Read-only"
    assert said["good joined"] == said["only text"] == ""
    for name, words in {
        "only joined": f"{root} is not shared: HOST, which joined later, {unwritten}",
        "blind joined": f"{root} is not shared: HOST, which joined later, {unseen}",
        "blind text": f"{root / 'text.txt'} is not there on HOST",
        "blind counts": f"{root} is not shared: HOST, which joined later, {unseen}",
        "blind trains": "did not see a file the driver wrote to it",
        "only begun": "could not write to it",
    }.items():
        assert words in re.sub(r"\d+(\.\d+){3}", "HOST", said[name]), said
        assert "leave out --address" in said[name]
    assert left == ["text.txt"]
    assert sorted(path.name for path in root.iterdir()) == ["text.txt", "tokenizer"]
    assert list((root / "tokenizer").iterdir()) == []
