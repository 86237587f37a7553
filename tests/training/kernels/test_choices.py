"""Which of two forms this machine gets: measured once, kept, and the same for all who start later."""

from __future__ import annotations

import json
import os

import pytest
import torch

from gridsearch import files
from gridsearch.training.kernels import choices, compiler, families
from gridsearch.training.kernels.stages import Conv, MaxPool, Relu
from tests.training.compilers import needs_compiler

pytestmark = needs_compiler


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The file of choices, where there is none yet; nothing is known from before."""
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setattr(choices, "_known", {})
    return tmp_path / "kernels" / files.CHOICES


def forms(*named):
    """Calls of forms, the first of them the fastest by far; and how often they are asked for."""
    asked = []

    def give():
        asked.append(named)
        return {name: (lambda n=n: sum(range(3000 * n * n))) for n, name in enumerate(named, 1)}

    return give, asked


def test_the_faster_form_is_measured_once_and_kept_for_all_later_starts(path, monkeypatch):
    give, asked = forms("quick", "slow")
    assert choices.kept_choice("a shape", give) == "quick"
    assert choices.kept_choices() == {"a shape": "quick"}
    (row,) = json.loads(path.read_text()).values()
    assert row["microseconds"]["quick"] < row["microseconds"]["slow"]
    monkeypatch.setattr(choices, "_known", {})  # another process, which would find otherwise
    later, asked_later = forms("slow", "quick")
    assert choices.kept_choice("a shape", later) == "quick"
    assert len(asked) == 1 and not asked_later
    assert choices.kept_choice("another shape", later) == "slow"


def test_whoever_writes_first_has_chosen_for_those_who_measured_meanwhile(path):
    give, _ = forms("quick", "slow")

    def overtaken():
        key = f"{compiler.processor_model()}; a shape"
        files.update_json(path, lambda rows: rows | {key: {"form": "slow"}})
        return give()

    assert choices.kept_choice("a shape", overtaken) == "slow"


def test_forms_that_are_alike_and_choices_that_cannot_be_kept_leave_it_to_the_formula(path, monkeypatch):
    monkeypatch.setattr(choices, "_ALIKE", 1e6)
    give, _ = forms("quick", "slow")
    assert choices.kept_choice("a shape", give) is None
    assert choices.kept_choices() == {"a shape": None}

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "write_whole", full)
    monkeypatch.setattr(choices, "_ALIKE", 1.1)
    assert choices.kept_choice("another shape", give) is None


def test_a_file_of_choices_that_is_damaged_is_made_again(path):
    path.parent.mkdir(mode=0o700)
    path.write_text('{"a shape": 3')
    give, _ = forms("quick", "slow")
    assert choices.kept_choice("a shape", give) == "quick"


def test_two_forms_of_a_convolution_are_measured_only_where_the_formula_is_not_sure(path, monkeypatch):
    monkeypatch.setattr(
        families, "kept_choice", lambda key, forms: asked.append((key, forms)) or families.POOLED
    )
    stages = [Conv(6, 12, (5, 5)), MaxPool((2, 2), (2, 2)), Relu()]
    how = {"images": 10, "input_grad": True, "bf16": False}
    for sure in (1.0, 1e9):
        asked = []
        monkeypatch.setattr(families, "_SURE", sure)
        families.cover(stages, (6, 12, 12), torch.float32, **how)
        assert len(asked) == (sure > 1)
    ((key, forms_of),) = asked
    assert key.startswith("6 -> 12, 5x5 padded by 0x0, pooled by 2x2, 12x12 px, 10 images, float32; ")
    calls = forms_of()
    assert sorted(calls) == sorted((families.POOLED, families.INNER))
    for call in calls.values():
        call()
    monkeypatch.setattr(families, "kept_choice", lambda *_: families.INNER)
    inner, covered = families.cover(stages, (6, 12, 12), torch.float32, **how)
    assert (inner.output, covered) == ("batch inner", 3)
    assert os.environ["GRIDSEARCH_KERNELS"] == str(path.parent)
