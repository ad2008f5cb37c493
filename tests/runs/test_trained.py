"""Text from a model, in pieces and whole."""

from itertools import pairwise
from pathlib import Path

import torch

from lmray.dataset import open_splits
from lmray.generation import Sampling
from lmray.model import TransformerLM
from lmray.runs.run_directory import RunDirectory
from lmray.runs.trained import Trained, continue_text, stream_text
from tests.small import small_run


def test_a_character_of_several_tokens_is_streamed_whole(small_dataset: Path, tmp_path: Path):
    """A model whose every token has one successor writes two characters and half of a third."""
    splits = open_splits(small_dataset)
    run = small_run(small_dataset)
    ids = splits.tokenizer.encode("A\u00e9\u20ac")
    assert len(ids) == 6
    model = TransformerLM.from_config(run.model)
    assert model.lm_head is not None
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("ln_final"):
                parameter.zero_()
        for place, (token, successor) in enumerate(pairwise([*ids, ids[1]])):
            model.token_embeddings.weight[token, place] = 1
            model.lm_head.weight[successor, place] = 1
    directory = RunDirectory(tmp_path)
    trained = Trained(directory, run, splits.tokenizer, model, torch.device("cpu"), step=0)
    greedy = Sampling(temperature=0)
    pieces = list(stream_text(trained, "A", max_new_tokens=6, sampling=greedy, seed=0))
    assert [piece for piece in pieces if piece] == ["\u00e9", "\u20ac", "\ufffd"]
    assert len(pieces) == 7  # one a token, and what was left
    (whole,) = continue_text(trained, "A", max_new_tokens=6, sampling=greedy, seed=0)
    assert (whole.text, len(whole.ids)) == ("".join(pieces), 6)
