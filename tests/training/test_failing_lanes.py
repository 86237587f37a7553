"""A lane that diverges, raises or cannot be written ends alone, and says why."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from gridsearch.errors import StoreError
from gridsearch.records import TrialFailed, TrialState


def test_a_diverged_lane_names_its_step_and_loss_and_leaves_no_files(train, make_settings):
    class Trap(nn.Module):
        """Gives NaN from the sixth training step on."""

        def __init__(self, net):
            super().__init__()
            self.net, self.calls = net, 0

        def forward(self, x):
            self.calls += self.training
            return self.net(x) * (float("nan") if self.calls >= 6 else 1.0)

    def build(settings, data):
        return Trap(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))

    run = train(make_settings(epochs=5), build=build)  # 50 images to train on: 4 steps an epoch
    end = run.finished()
    assert end.state is TrialState.DIVERGED
    assert end.message == "loss nan at step 6 (epoch 2)"
    assert (end.epochs, end.metrics, end.files) == (1, {}, ())
    assert len(run.epochs()) == 1
    assert not run.scratch[0].exists()


def test_a_lane_whose_last_step_breaks_the_weights_is_diverged_even_without_validation(train, make_settings):
    class Edge(nn.Module):
        """Its loss is finite and its gradient is not: the gradient of a square root at 0."""

        def __init__(self):
            super().__init__()
            self.layer, self.root = nn.Linear(64, 3), nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return self.layer(x.flatten(1)) + self.root.abs().sqrt()

    run = train(make_settings(epochs=1, batch=1000, val=0.0), build=lambda *_: Edge())
    assert run.finished().state is TrialState.DIVERGED
    assert run.finished().message == "weights nan at step 1 (epoch 1)"


def test_a_validation_loss_that_is_not_finite_is_a_divergence(train, make_settings):
    class Bad(nn.Sequential):
        def forward(self, x):
            return super().forward(x) * (1.0 if self.training else float("inf"))

    run = train(make_settings(), build=lambda *_: Bad(nn.Flatten(), nn.Linear(64, 3)))
    assert run.finished().state is TrialState.DIVERGED
    assert run.finished().message.startswith("validation loss")
    assert run.epochs() == []


def test_a_model_that_raises_fails_its_lane_alone_with_its_own_traceback(train, make_settings, nets):
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 3)

        def forward(self, x):
            if self.training:
                raise KeyError("my own mistake")
            return self.layer(x.flatten(1))

    def build(settings, data):
        return Fragile() if settings.batch == 7 else nets["conv"](settings, data)

    run = train(make_settings(), make_settings(batch=7), make_settings(lr=0.02), build=build)
    failed = run.end(1)
    assert isinstance(failed, TrialFailed)
    assert failed.reason == "error"
    assert "\n" not in failed.message
    assert failed.message.startswith("KeyError: 'my own mistake' (test_failing_lanes.py:")
    assert 'raise KeyError("my own mistake")' in failed.traceback
    assert "gridsearch/training" not in failed.traceback
    assert run.finished(0).state is run.finished(2).state is TrialState.COMPLETE


class ForColor(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


class ForLargeImages(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(28 * 28, 3)

    def forward(self, x):
        return self.head(x.flatten(1))


class ForAGpu(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        return self.head(x.flatten(1)) + torch.zeros(3).cuda()


SHAPES = "the images are 1x8x8; its constructor gets in_channels=1, image_size=8 where it takes that"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("net", "problem", "mend"),
    [
        (ForColor, r"expected input\[2, 1, 8, 8\] to have 3 channels", SHAPES),
        (ForLargeImages, "shapes cannot be multiplied", SHAPES),
        (
            ForAGpu,
            "CUDA|NVIDIA driver",  # by whether this process has asked for a device before
            'leave `.cuda()` and "cuda" out of its code: it is put on the device that trains it',
        ),
    ],
)
def test_a_model_for_other_images_or_a_gpu_is_told_how_to_mend_it(train, make_settings, net, problem, mend):
    message = train(make_settings(), build=lambda *_: net()).end().message
    assert re.search(problem, message)
    assert "(test_failing_lanes.py:" in message
    assert message.partition("); ")[2] == mend
    assert "\n" not in message


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda *_: {"layers": 3}, "net gives a dict, not a torch.nn.Module"),
        (
            lambda *_: nn.Flatten(),
            (
                "the model gives [2, 64] for 2 images; logits [2, 3] are wanted; "
                "its constructor gets num_classes=3 where it takes that"
            ),
        ),
        (
            lambda *_: nn.Conv2d(1, 3, 3),
            "the model gives [2, 3, 6, 6] for 2 images; logits [2, 3] are wanted",
        ),
        (
            lambda *_: TupleNet(),
            (
                "the model gives a tuple, not a tensor of logits [B, 3]; name a class of yours with "
                "`def forward(self, x): y = super().forward(x); return y[0]`"
            ),
        ),
        (lambda *_: WholeNet(), "the model gives torch.int64 values; floating-point logits are wanted"),
        (lambda *_: FixedNet(), "net has no parameters to train"),
        (
            lambda *_: AuxiliaryNet(),
            (
                "the model gives in training a tuple, not a tensor of logits [B, 3]; name a class of yours with "
                "`def forward(self, x): y = super().forward(x); return y[0] if self.training else y`"
            ),
        ),
    ],
    ids=["not a module", "wrong width", "a map", "a tuple", "whole numbers", "nothing to train", "auxiliary"],
)
def test_a_model_that_is_no_classifier_is_refused_in_one_clear_line(train, make_settings, build, message):
    run = train(make_settings(), make_settings(lr=0.02), build=build)
    for lane in (0, 1):
        failed = run.end(lane)
        assert isinstance(failed, TrialFailed)
        assert (failed.reason, failed.message, failed.traceback) == ("error", message, message)


class TupleNet(nn.Linear):
    def __init__(self):
        super().__init__(64, 3)

    def forward(self, x):
        return super().forward(x.flatten(1)), None


class AuxiliaryNet(TupleNet):
    def forward(self, x):
        return super().forward(x) if self.training else super().forward(x)[0]


class WholeNet(TupleNet):
    def forward(self, x):
        return super().forward(x)[0].long()


class FixedNet(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3]


def test_dropout_for_a_model_without_any_is_refused(train, make_settings, nets):
    failed = train(make_settings(dropout=0.5), build=nets["dense"]).end()
    assert failed.message == "dropout=0.5: the model has no dropout module"


def test_memory_that_runs_out_is_told_apart(train, make_settings, nets):
    def build(settings, data):
        if settings.batch == 1:
            torch.empty(2**60, dtype=torch.uint8)  # the real allocator's own refusal
        if settings.batch == 2:
            raise MemoryError
        return nets["dense"](settings, data)

    run = train(make_settings(batch=1), make_settings(batch=2), make_settings(), build=build)
    assert [run.end(0).reason, run.end(1).reason] == ["oom", "oom"]
    assert run.finished(2).state is TrialState.COMPLETE


def test_a_model_that_calls_sys_exit_fails_its_lane_alone(train, make_settings, nets):
    def build(settings, data):
        if settings.batch == 1:
            raise SystemExit(3)
        return nets["dense"](settings, data)

    run = train(make_settings(batch=1), make_settings(), build=build)
    assert run.end(0).message.startswith("SystemExit: 3")
    assert run.finished(1).state is TrialState.COMPLETE


def test_data_that_cannot_be_split_as_asked_fails_the_lane_with_the_split_s_words(train, make_settings):
    failed = train(make_settings(subset=1000)).end()
    assert failed.message == "subset=1000: the training split has 50 images"


def test_an_error_of_who_takes_the_events_is_not_a_trial_s(train, make_settings):
    def emit(event):
        raise BrokenPipeError("the coordinator is gone")

    with pytest.raises(BrokenPipeError):
        train(make_settings(), emit=emit)


def test_files_that_cannot_be_written_are_not_a_trial_s_fault(train, make_settings, tmp_path):
    (tmp_path / "run1").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"run1.* cannot be written: "):
        train(make_settings())


def test_weights_that_no_file_takes_fail_their_lane_alone(train, make_settings, nets):
    def build(settings, data):
        net = nets["dense"](settings, data)
        if settings.batch == 1:
            net.register_buffer("kept", torch.eye(3).to_sparse())
        return net

    run = train(make_settings(batch=1), make_settings(), build=build)
    assert run.end(0).reason == "error"
    assert run.finished(1).state is TrialState.COMPLETE
