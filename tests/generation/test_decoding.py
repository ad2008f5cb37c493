"""Generation against a naive reference: greedy, cached, batched, streamed, stop, seed, window."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmray.config import Model
from lmray.errors import LmrayError, UsageError
from lmray.generation import Sampling, generate, generate_batch, stream
from lmray.model import TransformerLM
from tests.devices import DEVICES
from tests.model.architectures import ONE_SWITCH, small

V, T = 32, 8


def build():
    torch.manual_seed(0)
    model = TransformerLM.from_config(
        Model(vocab_size=V, context_length=T, num_layers=2, d_model=16, num_heads=2, d_ff=16)
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(5)  # decided opinions, for the tests to tell apart
    return model


@pytest.fixture
def lm():
    return build()


def greedy(model, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        logits = model(torch.tensor([ids[-T:]]))[0, -1]
        ids.append(max(range(V), key=lambda token: logits[token].item()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("prompt", [[3], [1, 2, 3, 4, 5], list(range(20))])
def test_temperature_zero_is_greedy_also_past_the_context(lm, prompt):
    assert generate(lm, prompt, 12, temperature=0) == greedy(lm, prompt, 12)


@pytest.mark.parametrize("settings", [{"temperature": 1e-300}, {"top_p": 1e-12}])
def test_the_limits_are_greedy(lm, settings):
    assert generate(lm, [1, 2], 10, **settings) == greedy(lm, [1, 2], 10)


def test_returns_new_ids_only_and_leaves_the_prompt(lm):
    prompt = [1, 2, 3]
    assert len(generate(lm, prompt, 5)) == 5
    assert prompt == [1, 2, 3]
    assert generate(lm, prompt, 0) == []


def test_the_seed_alone_decides(lm):
    first = generate(lm, [1], 20, seed=4)
    torch.rand(5)
    state = torch.get_rng_state()
    assert generate(lm, [1], 20, seed=4) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert generate(lm, [1], 20, seed=5) != first


def test_ends_before_a_stop_token(lm):
    free = generate(lm, [1, 2], 12, temperature=0)
    stop = free[5]
    assert generate(lm, [1, 2], 12, temperature=0, stop_tokens={stop}) == free[: free.index(stop)]
    assert generate(lm, [stop], 3, temperature=0, stop_tokens=()) == greedy(lm, [stop], 3)


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_mode_as_it_was(lm, training):
    lm.train(training)
    generate(lm, [1], 2)
    assert lm.training is training


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7), (2.0, 0.9)])
def test_draws_follow_the_distribution(lm, temperature, top_p):
    """Chi-square of 800 first tokens against probabilities computed in plain Python."""
    logits = lm(torch.tensor([[1, 2]]))[0, -1].tolist()
    weights = [math.exp((x - max(logits)) / temperature) for x in logits]
    probabilities = [w / sum(weights) for w in weights]
    kept, mass = set(), 0.0
    for token in sorted(range(V), key=lambda t: -probabilities[t]):
        if mass >= top_p:
            break
        kept.add(token)
        mass += probabilities[token]
    draws, counts = 800, [0] * V
    sampling = Sampling(temperature, top_p)
    for (token,) in generate_batch(lm, [[1, 2]] * draws, 1, sampling):
        counts[token] += 1
    assert all(counts[token] == 0 for token in range(V) if token not in kept)
    expected = {t: draws * probabilities[t] / mass for t in kept}
    common = [t for t in kept if expected[t] >= 5]
    statistic = sum((counts[t] - expected[t]) ** 2 / expected[t] for t in common)
    degrees = max(1, len(common) - 1)
    assert statistic < degrees + 5 * math.sqrt(2 * degrees)


@pytest.mark.parametrize("device", DEVICES)
def test_a_cached_text_equals_one_computed_anew_each_time(lm, device):
    """Drawn, not greedy, on its way into and past the context."""
    sampling, generator = Sampling(temperature=1.5, top_k=9), torch.Generator().manual_seed(7)
    ids = [1, 2]
    for _ in range(2 * T):
        with torch.no_grad():
            scores = lm(torch.tensor([ids[-T:]]))[0, -1]
        ids.append(sampling.choose(scores, generator))
    assert generate(lm.to(device), [1, 2], 2 * T, 1.5, top_k=9, seed=7) == ids[2:]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("changes", ONE_SWITCH, ids=str)
def test_every_architecture_slides_its_window_past_the_context(changes, device):
    """Cached on the way there, and afterwards as if each token were asked for by itself."""
    torch.manual_seed(0)
    lm = TransformerLM.from_config(small(**changes)).double()
    ids = [1, 2, 3]
    for _ in range(18):
        with torch.no_grad():
            ids.append(int(lm(torch.tensor([ids[-lm.context_length :]]))[0, -1].argmax()))
    prompts = [[1, 2, 3], list(range(14))]
    batch = generate_batch(lm.to(device), prompts, 18, Sampling(temperature=0))
    assert batch[0] == ids[3:]


def test_a_cached_step_reads_one_token(lm, monkeypatch):
    lengths, original = [], lm.hidden_states

    def counted(ids, *args, **kwargs):
        lengths.append(ids.shape[1])
        return original(ids, *args, **kwargs)

    monkeypatch.setattr(lm, "hidden_states", counted)
    generate(lm, [1, 2, 3], 7)
    assert lengths == [3, 1, 1, 1, 1, 1, T]  # the last one is past the context


@settings(max_examples=15)
@given(
    prompts=st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=12), max_size=4),
    count=st.integers(0, 12),
    seed=st.integers(0, 100),
    stop=st.sets(st.integers(0, V - 1), max_size=6),
)
def test_a_batch_is_its_texts_one_by_one(prompts, count, seed, stop):
    model, sampling = build(), Sampling(0.9, 0.8)
    found = generate_batch(model, prompts, count, sampling, stop_tokens=stop, seed=seed)
    alone = [
        generate(model, prompt, count, 0.9, 0.8, stop_tokens=stop, seed=seed + row)
        for row, prompt in enumerate(prompts)
    ]
    assert found == alone


def test_a_stream_yields_each_token_before_the_next_is_computed(lm):
    tokens = stream(lm, [1, 2], 5, Sampling(temperature=0))
    expected = greedy(lm, [1, 2], 5)
    assert [next(tokens), next(tokens)] == expected[:2]
    with torch.no_grad():
        lm.lm_head.weight.fill_(math.nan)
    with pytest.raises(LmrayError, match="not finite"):
        next(tokens)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1), "prompt_ids is empty"),
        (([1, V], 1), "prompt_ids holds 32, not one of the model's 32 ids"),
        (([-1], 1), "prompt_ids holds -1"),
        (([1], -1), "max_new_tokens=-1 is negative"),
        (([1], 1, -0.1), r"temperature=-0.1 .*; 0 takes the likeliest"),
        (([1], 1, math.nan), "temperature=nan"),
        (([1], 1, 1.0, 0.0), r"top_p=0.0 is not in \(0, 1\]"),
        (([1], 1, 1.0, 1.1), r"top_p=1.1 is not in \(0, 1\]"),
    ],
)
def test_refuses_impossible_requests(lm, arguments, message):
    with pytest.raises(UsageError, match=message):
        generate(lm, *arguments)


def test_says_that_a_diverged_model_cannot_be_sampled(lm):
    with torch.no_grad():
        lm.ln_final.weight.fill_(math.nan)
    with pytest.raises(LmrayError, match="training diverged; use an earlier checkpoint"):
        generate(lm, [1], 3)
