"""FIGURES of the coursework's write-ups, section 3."""

import pytest

from lmray.accounting import (
    estimate,
    forward_flops,
    gpt2_model,
    num_parameters,
    optimizer_flops,
    six_n_d,
    training_memory,
    variants,
)
from lmray.accounting.toy import sgd_toy, sgd_toy_exactly


def shares(model):
    """Of the forward pass: GFLOP, and percentages in the order of the table."""
    flops = forward_flops(model, model.context_length)
    total = sum(flops.values())
    return total / 1e9, [round(100 * part / total, 1) for part in flops.values()]


@pytest.mark.parametrize(
    ("name", "parameters", "gflops", "percentages", "two_matrices"),
    [
        ("gpt2-small", 190_460_160, 349.6, [16.6, 5.5, 5.5, 49.8, 22.6], 291.6),
        ("gpt2-medium", 505_629_696, 1033.1, [20.0, 5.0, 5.0, 59.9, 10.2], 827.0),
        ("gpt2-large", 1_072_469_760, 2257.7, [21.4, 4.3, 4.3, 64.2, 5.8], 1774.6),
        ("gpt2-xl", 2_127_057_600, 4513.3, [22.3, 3.6, 3.6, 66.9, 3.6], 3506.7),
    ],
)
def test_the_four_sizes(name, parameters, gflops, percentages, two_matrices):
    model = gpt2_model(name)
    assert num_parameters(model) == parameters
    total, found = shares(model)
    assert total == pytest.approx(gflops, abs=0.1)
    assert found == percentages
    assert shares(gpt2_model(name, "gelu"))[0] == pytest.approx(two_matrices, abs=0.1)


def test_xl_at_a_long_context():
    total, found = shares(gpt2_model("gpt2-xl", context=16_384))
    assert total == pytest.approx(149_522, abs=1)
    assert found == [10.8, 27.6, 27.6, 32.3, 1.8]
    assert total / shares(gpt2_model("gpt2-xl"))[0] == pytest.approx(33.1, abs=0.05)
    assert shares(gpt2_model("gpt2-xl", "gelu", 16_384))[0] == pytest.approx(133_416, abs=1)


def test_three_models_are_called_xl():
    found = variants("gpt2-xl")
    assert [v.parameters for v in found] == [2_127_057_600, 1_635_537_600, 1_557_611_200]
    gigabytes = [(4 * v.parameters / 1e9, 4 * v.parameters / 2**30) for v in found]
    assert gigabytes[0] == pytest.approx((8.508, 7.924), abs=5e-4)
    assert gigabytes[1] == pytest.approx((6.542, 6.093), abs=5e-4)
    assert gigabytes[2][0] == pytest.approx(6.230, abs=5e-4)


def test_the_published_sizes():
    counts = [variants(f"gpt2-{size}")[2].parameters for size in ("small", "medium", "large")]
    assert counts == [124_439_808, 354_823_168, 774_030_080]


def days(flops):
    return estimate(flops, device="A100", dtype="fp32", mfu=0.5).days


@pytest.mark.parametrize(
    ("index", "by_products", "by_rule"), [(0, 6584, 6354), (1, 5115, 4886), (2, 5115, 4653)]
)
def test_training_xl_takes_years(index, by_products, by_rule):
    """The published model's 4,660 days in the figures are 6ND with N rounded to 1.56 billion."""
    variant, sequences = variants("gpt2-xl")[index], 400_000 * 1024
    assert days(3 * variant.forward_flops * sequences) == pytest.approx(by_products, abs=0.5)
    found = days(six_n_d(variant.parameters, sequences * 1024))
    assert found == pytest.approx(by_rule, abs=0.5)
    if index == 2:
        assert days(six_n_d(1_560_000_000, sequences * 1024)) == pytest.approx(4660, abs=0.5)


@pytest.mark.parametrize(("index", "years"), [(0, 18.02), (1, 14.0)])
def test_training_xl_in_years(index, years):
    flops = 3 * variants("gpt2-xl")[index].forward_flops * 400_000 * 1024
    found = estimate(flops, device="A100", dtype="fp32", mfu=0.5).years
    assert found == pytest.approx(years, abs=0.01)


def test_xl_fits_eighty_gigabytes_with_few_sequences():
    memory = training_memory(gpt2_model("gpt2-xl"))
    # joined matrices and rotations beside the 16 bytes a parameter
    assert sum(memory.fixed.values()) / 1e9 == pytest.approx(34.03 + 1.47 + 0.03, abs=0.05)
    assert memory.largest_batch(80 * 10**9) == 6


# What the write-ups keep of a sequence, in fp32 numbers. Their lists are not in the figures, their
# sums are: these lists, of what each names, give them. `streams` are tensors of S x d in every
# layer, `squares` are H x S x S there, `logits` are S x V and `ends` S x d, once.
KEPT = [
    # Norms 2, q k v 3, weighted values, output, FFN 4 + 4 + 1. The softmax is in the scores' place;
    # what is embedded and the final norm; logits and their softmax.
    ({"streams": 2 + 3 + 1 + 1 + 4 + 4 + 1, "squares": 1, "ends": 2, "logits": 2}, 1, 10.49, 5),
    # Scores and softmax; the final norm; logits alone.
    ({"streams": 2 + 3 + 1 + 1 + 4 + 4 + 1, "squares": 2, "ends": 1, "logits": 1}, 1, 15.31, 3),
    # SwiGLU's gate, value and product; what w2 gives is added to the stream. Logits and softmax.
    ({"streams": 2 + 3 + 1 + 1 + 4 + 4 + 4, "squares": 2, "ends": 1, "logits": 2}, 0, 16.46, 2),
]


@pytest.mark.parametrize(("kept", "variant", "gigabytes", "batch"), KEPT)
def test_the_list_of_what_is_kept_decides_about_the_batch(kept, variant, gigabytes, batch):
    model = gpt2_model("gpt2-xl")
    n, d = model.context_length, model.d_model
    sizes = {
        "streams": model.num_layers * n * d,
        "squares": model.num_layers * model.num_heads * n * n,
        "ends": n * d,
        "logits": n * model.vocab_size,
    }
    a_sample = 4 * sum(count * sizes[name] for name, count in kept.items())
    assert a_sample / 1e9 == pytest.approx(gigabytes, abs=5e-3)
    fixed = 16 * variants("gpt2-xl")[variant].parameters
    assert (80 * 10**9 - fixed) // a_sample == batch


def test_adamw_takes_fourteen_or_fifteen_operations_a_parameter():
    model = gpt2_model("gpt2-xl")
    assert 14 <= optimizer_flops(model) / num_parameters(model) <= 15


def test_two_write_ups_are_a_thousand_times_too_fast():
    flops = six_n_d(1_557_611_200, 400_000 * 1024 * 1024)
    assert days(flops) / 4.6 == pytest.approx(1000, rel=0.02)


TOY = {
    10: [24.17, 15.47, 11.40, 8.92, 7.23, 5.99, 5.05, 4.32, 3.73, 3.25],
    100: [24.17, 24.17, 4.15, 0.10, 0, 0, 0, 0, 0, 0],
    1000: [24.17, 8725, 1.507e6, 1.676e8, 1.358e10, 8.57e11, 4.40e13, 1.89e15, 6.98e16, 2.24e18],
}


@pytest.mark.parametrize("lr", TOY)
def test_the_sgd_toy(lr):
    found = sgd_toy(lr)
    assert found == pytest.approx(TOY[lr], rel=2e-3, abs=5e-3)
    assert found == pytest.approx(list(sgd_toy_exactly(found[0], lr)), rel=1e-5, abs=1e-6)
