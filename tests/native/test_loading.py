"""What makes kernels others than those that a machine has compiled."""

import shutil
from pathlib import Path

from lmray.native import loading
from lmray.tokenizer import native


def test_a_change_of_any_kernel_is_another_folder(tmp_path: Path) -> None:
    kernels = tmp_path / "kernels"
    shutil.copytree(native.KERNELS, kernels)
    before = loading.version(kernels)
    assert before == loading.version(native.KERNELS)
    scan = kernels / "scan.py"
    scan.write_text(scan.read_text() + "\n")
    assert loading.version(kernels) != before
