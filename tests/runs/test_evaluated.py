"""A trained run evaluated: its own record again, other windows, losses by context, diversity."""

from pathlib import Path

import numpy as np
import pytest

from lmray.config import override
from lmray.dataset import TokenDataset, open_splits
from lmray.errors import UsageError
from lmray.runs.evaluated import by_context, diversity_beside, evaluate_trained
from lmray.runs.execute import execute
from lmray.runs.samples import SAMPLING, diversity
from lmray.runs.trained import Trained, continue_text, load_trained
from lmray.training.evaluation import Validation
from tests.small import small_run


@pytest.fixture(scope="module")
def valid(small_dataset: Path) -> TokenDataset:
    return open_splits(small_dataset).valid


def trained_with(dataset: Path, runs: Path, precision: str) -> Trained:
    run = override(small_run(dataset), {"optim.precision": precision})
    return load_trained(execute(run, open_splits(dataset), runs, report=lambda record: None))


@pytest.fixture(scope="module")
def trained(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained_with(small_dataset, tmp_path_factory.mktemp("runs"), "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_weights"])
def test_the_runs_own_windows_give_its_last_record(
    precision: str, small_dataset: Path, tmp_path: Path, valid: TokenDataset
):
    trained = trained_with(small_dataset, tmp_path, precision)
    found = evaluate_trained(trained, valid, context_length=16, stride=16)
    record = trained.directory.final_validation()
    shared = found.keys() & record.keys() - {"tokens"}  # there of the training
    assert {"loss", "loss_low", "loss_high", "bits_per_byte_low", "documents"} <= shared
    assert {key: found[key] for key in shared} == {key: record[key] for key in shared}


def test_no_more_windows_are_computed_at_once_than_the_run_may(
    small_dataset: Path, tmp_path: Path, valid: TokenDataset
):
    run = override(small_run(small_dataset), {"execution.micro_batch": 3})
    directory = execute(run, open_splits(small_dataset), tmp_path, report=lambda record: None)
    trained = load_trained(directory)
    sizes = set()
    trained.model.register_forward_pre_hook(lambda module, given: sizes.add(len(given[0])))
    evaluate_trained(trained, valid, context_length=8, stride=8)
    assert max(sizes) == 3


def test_losses_by_context_and_by_position_make_up_the_loss(trained: Trained, valid: TokenDataset):
    found = evaluate_trained(trained, valid, context_length=13, stride=6)
    rows = found["loss_by_context"]
    assert [(row["first"], row["last"]) for row in rows] == [
        (1, 1),
        (2, 2),
        (3, 4),
        (5, 8),
        (9, 13),
    ]
    assert sum(row["tokens"] for row in rows) == found["tokens"] == len(valid) - 1
    assert sum(found["tokens_by_position"]) == found["tokens"]
    means = [
        sum(row["tokens"] * row["loss"] for row in rows),
        np.dot(found["tokens_by_position"], found["loss_by_position"]),
    ]
    assert np.divide(means, found["tokens"]) == pytest.approx(found["loss"])
    assert found["perplexity_low"] < found["perplexity"] < found["perplexity_high"]


@pytest.mark.parametrize(
    ("length", "ranges"),
    [(1, [(1, 1)]), (2, [(1, 1), (2, 2)]), (8, [(1, 1), (2, 2), (3, 4), (5, 8)])],
)
def test_ranges_of_contexts_are_powers_of_two(length: int, ranges: list[tuple[int, int]]):
    losses, counts = np.arange(float(length)), np.arange(length) + 1
    validation = Validation(0, 1, 0, 1, 1, length, length, losses, counts, np.ones((3, 1)))
    rows = by_context(validation)
    assert [(row["first"], row["last"]) for row in rows] == ranges
    for row in rows:
        within = range(row["first"], row["last"] + 1)
        assert row["tokens"] == sum(within)
        assert row["loss"] == sum((place - 1) * place for place in within) / sum(within)


@pytest.mark.parametrize("context_length", [0, 17])
def test_a_context_that_was_not_trained_is_refused(
    trained: Trained, valid: TokenDataset, context_length: int
):
    with pytest.raises(UsageError, match=rf"context_length={context_length} is not from 1 to 16"):
        evaluate_trained(trained, valid, context_length=context_length, stride=context_length)


def test_diversity_is_of_documents_from_their_beginning(trained: Trained, valid: TokenDataset):
    found = diversity_beside(trained, valid, texts=5, max_new_tokens=20)
    tokenizer = trained.tokenizer
    text = tokenizer.decode(valid.read(0, len(valid)).tolist())
    documents = [tokenizer.encode(each)[:20] for each in text.split("<|endoftext|>")[:5]]
    assert found["split"] == diversity(documents)
    written = continue_text(trained, "", max_new_tokens=20, sampling=SAMPLING, seed=0, samples=5)
    assert found["model"] == diversity([each.ids for each in written])
