"""What models of others give: objects with logits train as these, and shapes that a batch of one changes are refused."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from gridsearch.records import TrialFailed
from gridsearch.training.batches import for_evaluation
from gridsearch.training.model_outputs import ModelRefused, check_logits


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)

    def maps(self, x):
        return nn.functional.adaptive_avg_pool2d(self.conv(x).relu(), 1)

    def forward(self, x):
        return self.out(self.maps(x).flatten(1))


class Squeezing(Net):
    def forward(self, x):
        return self.out(self.maps(x).squeeze())


class Unpacking(Net):
    """Raises where `Squeezing` gives another shape."""

    def forward(self, x):
        _, features = self.maps(x).squeeze().shape
        return self.out(self.maps(x).view(-1, features))


@dataclass
class Output:
    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden: torch.Tensor


class GivesObject(Net):
    def forward(self, pixel_values=None, labels=None):
        maps = self.maps(pixel_values)
        return Output(labels, self.out(maps.flatten(1)), maps)


class GivesDict(Net):
    """In evaluation alone; and its forward cannot be traced."""

    def forward(self, x):
        logits = super().forward(x[: len(x)])
        return logits if self.training else {"logits": logits}


@pytest.mark.parametrize("build", [Squeezing, Unpacking])
@pytest.mark.parametrize(
    ("batch", "where"),
    [(1, "batch=1"), (7, "the last batch of an epoch of 50 images has no more (drop_last=true")],
)
def test_a_network_that_a_batch_of_one_breaks_is_refused_alike_in_every_form_before_it_trains(
    train, alone, make_settings, build, batch, where
):
    lanes = make_settings(batch=batch), make_settings(batch=batch, lr=0.02)
    packed, lone = train(*lanes, build=lambda *_: build()), alone(lanes[0], build=lambda *_: build())
    messages = {run.end(k).message for run, k in ((packed, 0), (packed, 1), (lone, 0))}
    assert len(messages) == 1
    assert where in messages.pop()
    assert isinstance(lone.end(), TrialFailed)


def test_such_a_network_trains_where_no_batch_has_one_image(train, alone, make_settings):
    settings = make_settings(batch=7, drop_last=True)
    for run in train, alone:
        found, plain = (run(settings, build=lambda *_, net=net: net()) for net in (Squeezing, Net))
        assert found.finished().metrics["val_accuracy"] == plain.finished().metrics["val_accuracy"]


@pytest.mark.parametrize("images", [1, 2, 8, 9, 10, 17])
def test_no_image_is_evaluated_by_itself_where_there_are_more(images):
    for at_a_time in (1, 2, 4, 8):
        parts = for_evaluation(torch.arange(images), at_a_time)
        assert torch.equal(torch.cat(parts), torch.arange(images))
        assert images == 1 or min(map(len, parts)) > 1


@pytest.mark.parametrize("build", [GivesObject, GivesDict])
def test_a_network_that_gives_an_object_with_logits_trains_as_one_that_gives_these(
    train, alone, make_settings, build
):
    lanes = make_settings(), make_settings(lr=0.02)
    for run in train, alone:
        found, plain = (run(*lanes, build=lambda *_, net=net: net()) for net in (build, Net))
        for k in (0, 1):
            weights = plain.weights(k)
            assert found.weights(k).keys() == weights.keys()
            for name, tensor in found.weights(k).items():
                torch.testing.assert_close(tensor, weights[name], rtol=1e-4, atol=1e-6)


TWO = torch.zeros(2, 3)
Auxiliary = namedtuple("Auxiliary", "logits aux_logits")


@pytest.mark.parametrize(
    ("given", "classes", "training", "words"),
    [
        ((TWO, TWO), 3, False, "return y[0]`"),
        ((torch.zeros(2, 7), TWO), 3, False, "return y[1]`"),
        ({"out": TWO, "loss": None}, 3, False, 'return y["out"]`'),
        (Auxiliary(TWO, TWO), 3, True, "build it with aux_logits=False, or name a class"),
        (Auxiliary(TWO, TWO), 3, True, "return y.logits if self.training else y`"),
        (None, 3, False, "a NoneType, not a tensor of logits [B, 3]"),
        (torch.zeros(2, 3, 1, 1), 3, False, "`.flatten(1)` at its end"),
        (torch.zeros(2, 1), 2, False, "without a sigmoid"),
        (torch.zeros(2), 2, False, "without a sigmoid"),
    ],
)
def test_a_refusal_says_how_to_give_logits(given, classes, training, words):
    with pytest.raises(ModelRefused) as refusal:
        check_logits(given, 2, classes, training=training)
    assert words in str(refusal.value)


def test_an_object_with_further_logits_of_the_same_shape_is_refused(train, make_settings):
    class Distilled(Net):
        def forward(self, x):
            logits = super().forward(x)
            return {"logits": logits, "distillation_logits": 2 * logits}

    assert "a dict, not a tensor" in train(make_settings(), build=lambda *_: Distilled()).end().message
