"""A small run that was trained to its end, its model, and that in Hugging Face's files."""

from pathlib import Path

import pytest

from lmray.config import Model
from lmray.dataset import open_splits
from lmray.runs.execute import execute
from lmray.runs.exporting import export_model
from lmray.runs.run_directory import RunDirectory
from lmray.runs.trained import Trained, load_trained
from tests.small import VOCAB_SIZE, small_run


@pytest.fixture(scope="session")
def trained_run(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Of two layers with shared keys and values; read only."""
    model = Model(
        vocab_size=VOCAB_SIZE,
        context_length=16,
        num_layers=2,
        d_model=16,
        num_heads=2,
        num_kv_heads=1,
    )
    run = small_run(small_dataset, model=model)
    runs = tmp_path_factory.mktemp("runs")
    return execute(run, open_splits(small_dataset), runs, report=lambda record: None)


@pytest.fixture(scope="session")
def trained(trained_run: RunDirectory) -> Trained:
    """The model of that run; read only."""
    return load_trained(trained_run)


@pytest.fixture(scope="session")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder it is exported to; read only."""
    out = tmp_path_factory.mktemp("exported") / "model"
    export_model(trained, out)
    return out
