import json
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmray.accounting import num_parameters
from lmray.config import Run, flatten, override, run_id
from lmray.errors import UsageError
from lmray.presets import PRESETS, base_ts, load, read_mapping, tiny


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return str(path)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_by_its_name(name: str) -> None:
    assert load(name) == PRESETS[name]()
    assert override(load(name), flatten(load(name))) == load(name)


def test_the_base_is_that_of_the_coursework() -> None:
    base = base_ts()
    assert (base.model.ffn_width, base.model.rope_theta) == (1344, 10_000)
    assert (base.batches.unit, base.steps) == (32_768, 10_000)


def test_the_openwebtext_base_differs_in_vocabulary_and_data_alone() -> None:
    ours, base = flatten(load("base_owt")), flatten(base_ts())
    assert {key for key in base if ours[key] != base[key]} == {"model.vocab_size", "data.tokens"}
    assert ours["model.vocab_size"] == 32_000


@pytest.mark.parametrize("name", ["base_ts", "base_owt"])
def test_a_base_with_an_ffn_of_two_matrices_has_as_many_parameters(name: str) -> None:
    base = load(name)
    silu = override(base, {"model.ffn": "silu"})
    assert num_parameters(silu.model) == num_parameters(base.model)
    # Its width came to be auto; runs of before keep their ids.
    assert run_id(base, "d" * 64) == run_id(override(base, {"model.d_ff": 1344}), "d" * 64)


def test_the_ids_of_presets_are_these() -> None:
    """They may change only together with NUMERICS."""
    assert {name: run_id(load(name), "d" * 64) for name in PRESETS} == {
        "tiny": "5d6d7531ab71",
        "base_ts": "580b6e160cc6",
        "base_owt": "c0755826d31f",
        "a_ts": "22b03f99f8c5",
        "a_owt_tied": "4eab29ba9bb7",
    }


def test_write_up_a_is_matched_at_the_width_that_its_preset_says() -> None:
    silu = override(load("a_ts"), {"model.ffn": "silu", "model.d_ff": 2112})
    assert num_parameters(silu.model) == num_parameters(load("a_ts").model)


def test_those_of_write_up_a_are_its_models_at_its_budgets() -> None:
    small, large = load("a_ts"), load("a_owt_tied")
    assert small.steps == 5000
    assert large.budget.tokens / 1e9 == pytest.approx(1.31, abs=0.005)
    found, base = flatten(large), flatten(small)
    assert {key for key in base if found[key] != base[key]} == {
        "model.vocab_size",
        "model.tied_embeddings",
        "data.tokens",
        "budget.tokens",
    }


def test_a_file_without_extends_starts_from_the_defaults(tmp_path: Path) -> None:
    source = write(tmp_path / "own.yaml", "optim: {lr: 1e-2}\nseed: 3")
    assert load(source) == override(Run(), {"optim.lr": 0.01, "seed": 3})


def test_a_file_extends_a_preset(tmp_path: Path) -> None:
    source = write(
        tmp_path / "own.yaml",
        """
        extends: tiny
        model:
          num_layers: 2
        optim:
          lr: 1e-2
          clip_norm: none
        tracking: {wandb: off}
        """,
    )
    changes = {"model.num_layers": 2, "optim.lr": 0.01, "optim.clip_norm": "none"}
    assert load(source) == override(tiny(), changes)


def test_files_extend_files_relative_to_themselves(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "extends: tiny\noptim: {lr: 1e-2, beta1: .8}\nseed: 1")
    write(tmp_path / "deep" / "middle.json", '{"extends": "../base.yaml", "optim": {"lr": 2e-2}}')
    top = write(tmp_path / "top.yml", "extends: deep/middle.json\nseed: 2")
    assert load(top) == override(tiny(), {"optim.lr": 0.02, "optim.beta1": 0.8, "seed": 2})


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    values = {"extends": "tiny", "optim": {"lr": 1e-5, "clip_norm": "none"}, "seed": 7}
    as_json = write(tmp_path / "own.json", json.dumps(values))
    as_yaml = write(tmp_path / "own.yaml", json.dumps(values))
    assert load(as_json) == load(as_yaml)
    assert load(as_json).optim.lr == 1e-5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("3e8", 3e8),
        ("1.5E+2", 150.0),
        ("-1e3", -1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000", 1000),
        ("-3", -3),
        ("010", 10.0),
        ("true", True),
        ("off", "off"),
        ("no", "no"),
        ("none", "none"),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("'1e-3'", "1e-3"),
        ("e3", "e3"),
        ("0x10", "0x10"),
    ],
)
def test_a_yaml_scalar_reads_as_people_mean_it(tmp_path: Path, text: str, value: object) -> None:
    found = read_mapping(Path(write(tmp_path / "own.yaml", f"value: {text}")))["value"]
    assert found == value
    assert type(found) is type(value)


@settings(deadline=None)
@given(st.floats(allow_nan=False))
@example(1e-7)
@example(1e22)
@example(float("inf"))
def test_every_float_that_python_prints_is_that_float_in_yaml(
    tmp_path_factory: pytest.TempPathFactory, value: float
) -> None:
    text = repr(value).replace("inf", ".inf")
    path = tmp_path_factory.mktemp("yaml") / "own.yaml"
    assert read_mapping(Path(write(path, f"value: {text}"))) == {"value": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: {lr: 1}", r"own.yaml: unknown key 'optimizer'; did you mean optim "),
        ("optim: {lrr: 1}", r"own.yaml: unknown key 'optim.lrr'; did you mean optim.lr "),
        ("optim.lr: 1", r"'optim.lr' is a key of a section; write optim: \{lr: ...\}"),
        ("optim: {lr: .nan}", r"optim.lr=nan is not a finite number"),
        ("optim: 1e-3", r"optim=0.001 is not a mapping of keys"),
        ("optim:", r"optim=None is not a mapping of keys"),
        ("optim: [lr, 1]", r"optim=\['lr', 1\] is not a mapping of keys"),
        ("extends: tiny\noptim: 1", r"optim=1 is not a mapping of keys"),
        ("extends: tyni", r"own.yaml extends tyni: no preset named 'tyni'; the presets are tiny, "),
        ("extends: [tiny]", r"no preset named \"\['tiny'\]\""),
        ("extends: absent.yaml", r"own.yaml extends absent.yaml: cannot read .*/absent.yaml"),
        ("seed: 1\nseed: 2", r"own.yaml does not parse \(key 'seed' is there twice\); repair it"),
        ("1: 2", r"own.yaml does not parse \(key 1 is not text\); repair it"),
        ("optim: {lr: 1", r"own.yaml does not parse \(while parsing a flow mapping"),
        ("a: !!python/object/apply:os.getcwd []", r"own.yaml does not parse \(could not determine"),
        ("- optim", r"own.yaml holds \['optim'\], not a mapping of sections; write it as in"),
        ("", r"own.yaml holds None, not a mapping of sections"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    source = write(tmp_path / "own.yaml", text)
    with pytest.raises(UsageError, match=message) as refused:
        load(source)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"seed": 1, "seed": 2}', r"does not parse \(key 'seed' is there twice\)"),
        ('{"seed": 1', r"does not parse \(Expecting ',' delimiter"),
        ("[1]", r"holds \[1\], not a mapping"),
        ('{"optim": {"lr": NaN}}', r"optim.lr=nan is not a finite number"),
        ('{"optim": {"lr": "1e-3"}}', r"optim.lr='1e-3' is not a finite number"),
    ],
)
def test_a_wrong_json_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(write(tmp_path / "own.json", text))


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    for name in ("own.yaml", "own.json"):
        path = tmp_path / name
        path.write_bytes(b'{"data": {"tokens": "\xff"}}')
        with pytest.raises(UsageError, match=r"does not parse \(.*decode byte 0xff|invalid"):
            load(str(path))


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_circle_of_extends_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name, base in zip(names, [*names[1:], names[0]], strict=True):
        write(tmp_path / f"{name}.yaml", f"extends: ./{base}.yaml")
    with pytest.raises(UsageError, match=r"a.yaml extends itself in a circle; remove one"):
        load(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize("source", ["base", "Tiny", "", "tiny.toml"])
def test_an_unknown_preset_names_the_known_ones(source: str) -> None:
    message = rf"no preset named '{source}'; the presets are tiny, base_ts.* or name a .yaml"
    with pytest.raises(UsageError, match=message):
        load(source)


def test_a_missing_or_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*no.yaml \(No such file or directory\)"):
        load(str(tmp_path / "no.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UsageError, match=r"cannot read .*folder.yaml \(Is a directory\); check"):
        load(str(tmp_path / "folder.yaml"))
