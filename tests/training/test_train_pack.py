"""What a pack promises: streams from the seed alone, lanes that do not touch each other, ends that are told."""

from __future__ import annotations

import dataclasses
import hashlib
import random

import numpy as np
import pytest
import torch
from torch import nn

from gridsearch.records import EpochEnded, TrialFinished, TrialState
from gridsearch.records.wire import decode, encode
from gridsearch.training import loop
from gridsearch.training.solo_engine import SoloEngine


def untimed(events):
    """Events without what a clock decides."""
    timed = {"seconds": 0.0, "images_per_second": 0.0}
    return [
        dataclasses.replace(e, **{k: v for k, v in timed.items() if hasattr(e, k)}, trial=0) for e in events
    ]


def test_the_same_pack_twice_gives_the_same_bytes_and_events(train, make_settings):
    pack = [(make_settings(augment="flip+shift"), 0), (make_settings(lr=0.1, schedule="onecycle"), 1)]
    first, second = train(*pack), train(*pack)
    assert untimed(first.events) == untimed(second.events)
    for lane in (0, 1):
        assert set(first.bytes_of(lane)) == {"predictions.safetensors", "weights.safetensors"}
        assert first.bytes_of(lane) == second.bytes_of(lane)


def test_a_lane_s_bytes_do_not_depend_on_its_place_or_its_neighbours(train, make_settings):
    ours = (make_settings(augment="erase"), 7)
    alone = train(ours).bytes_of(0)
    crowded = train((make_settings(), 1), (make_settings(batch=5), 7), ours)
    assert crowded.bytes_of(2) == alone


def test_seeds_decide_weights_and_order(train, make_settings, nets):
    run = train((make_settings(), 0), (make_settings(), 1), build=nets["dense"])
    assert run.bytes_of(0)["weights.safetensors"] != run.bytes_of(1)["weights.safetensors"]


def test_the_first_epochs_do_not_depend_on_how_many_follow(train, make_settings):
    short, long = train(make_settings(epochs=1)), train(make_settings(epochs=3))
    assert untimed(short.epochs()) == untimed(long.epochs()[:1])


def test_a_poisoned_lane_leaves_its_neighbours_untouched_to_the_bit(train, make_settings, monkeypatch):
    monkeypatch.setattr(loop, "ENGINES", (SoloEngine(),))
    good = [(make_settings(), 0), (make_settings(optimizer="sgd"), 1)]
    poison = (make_settings(optimizer="sgd", lr=1e30), 0)
    clean, mixed = train(*good), train(good[0], poison, good[1])
    assert mixed.finished(1).state is TrialState.DIVERGED
    assert mixed.bytes_of(0) == clean.bytes_of(0)
    assert mixed.bytes_of(2) == clean.bytes_of(1)


def test_global_random_generators_are_given_back_as_they_were(train, make_settings):
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    train(make_settings())
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == expected


def test_a_model_that_draws_from_numpy_and_python_is_repeatable(train, make_settings, nets):
    class Jitter(nn.Module):
        def forward(self, x):
            return x * float(np.random.rand()) * random.random() if self.training else x

    def build(settings, data):
        net = nets["dense"](settings, data)
        with torch.no_grad():
            net[1].weight.copy_(torch.from_numpy(np.random.randn(*net[1].weight.shape)))
        return nn.Sequential(Jitter(), net)

    np.random.seed(1)
    first = train(make_settings(), build=build)
    np.random.seed(2)
    second = train(make_settings(), build=build)
    assert first.bytes_of(0) == second.bytes_of(0)

    def wasteful(settings, data):
        net = build(settings, data)
        np.random.rand(5)  # what was drawn before an epoch does not matter
        random.random()
        return net

    assert train(make_settings(), build=wasteful).bytes_of(0) == first.bytes_of(0)


def test_stop_before_the_start_leaves_without_an_event(train, make_settings):
    assert train(make_settings(), make_settings(), stop=lambda: True).events == []


def test_stop_leaves_quietly_in_the_middle_of_an_epoch(train, make_settings, nets):
    asked = 0
    steps = 0

    class Counting(nn.Sequential):
        def forward(self, x):
            nonlocal steps
            steps += self.training
            return super().forward(x)

    def stop():
        nonlocal asked
        asked += 1
        return asked > 2

    def build(settings, data):
        return Counting(nets["dense"](settings, data))

    settings = make_settings(epochs=10**6, batch=1, val=0.0)
    run = train(settings, settings, build=build, stop=stop)
    assert steps > 0
    assert all(isinstance(e, EpochEnded) for e in run.events)
    assert asked == 3


def test_an_epoch_s_event_tells_what_the_interface_wants(train, make_settings):
    run = train(make_settings(epochs=2))
    first, second = run.epochs()
    assert (first.epoch, second.epoch, first.attempt) == (1, 2, 1)
    assert 0 <= first.train_accuracy <= 1
    assert first.images_per_second > 0
    assert first.lr == 0.01
    assert [decode(encode(e)) for e in run.events] == run.events


def test_a_finished_lane_tells_the_metrics_of_its_last_epoch_and_its_files(train, make_settings):
    run = train(make_settings(epochs=4))
    end, last = run.finished(), run.epochs()[-1]
    for name in ("val_accuracy", "val_loss", "train_accuracy", "train_loss"):
        assert end.metrics[name] == getattr(last, name)
    assert end.metrics["parameters"] == 6 * 9 + 6 + 12 + 96 * 3 + 3
    assert end.epochs == 4
    for ref in end.files:
        content = (run.scratch[0] / ref.name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (ref.sha256, ref.size)
    predictions = run.predictions()
    assert predictions["logits"].dtype == torch.float16
    assert predictions["logits"].shape == (10, 3)
    right = predictions["logits"].argmax(1) == predictions["labels"]
    assert right.double().mean().item() == pytest.approx(end.metrics["val_accuracy"])


def test_bands_are_learned(train, make_settings):
    end = train(make_settings(epochs=12)).finished()
    assert end.metrics["val_accuracy"] >= 0.9
    assert end.metrics["train_loss"] < 0.5


def test_select_best_takes_the_epoch_with_the_best_validation_accuracy(train, make_settings, nets):
    wild = make_settings(optimizer="sgd", lr=0.7, momentum=0.9, epochs=8)
    run = train(dataclasses.replace(wild, select="best"), build=nets["dense"])
    rows = run.epochs()
    best = max(rows, key=lambda e: (e.val_accuracy, -e.val_loss, -e.epoch))
    assert best.epoch < len(rows), "the test needs a run whose last epoch is not its best"
    end = run.finished()
    assert end.metrics["selected_epoch"] == best.epoch
    assert end.metrics["val_accuracy"] == best.val_accuracy
    assert end.metrics["train_loss"] == best.train_loss
    assert end.epochs == 8
    shorter = train(dataclasses.replace(wild, epochs=best.epoch), build=nets["dense"])
    assert run.bytes_of(0) == shorter.bytes_of(0)


def test_without_validation_there_are_no_predictions_and_no_validation_metrics(train, make_settings):
    run = train(make_settings(val=0.0))
    assert {e.val_loss for e in run.epochs()} == {None}
    assert set(run.finished().metrics) == {"train_accuracy", "train_loss", "parameters"}
    assert set(run.bytes_of(0)) == {"weights.safetensors"}


def test_a_last_batch_of_one_image_is_left_away_with_batch_norm(train, make_settings, make_images):
    def build(settings, data):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    run = train(make_settings(batch=7), build=build, data=make_images(60))  # 50 = 7 x 7 + 1
    assert run.finished().state is TrialState.COMPLETE


def test_tied_weights_are_written_under_each_name_and_load_strictly(train, make_settings):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(64, 64)
            self.second = nn.Linear(64, 64)
            self.second.weight = self.first.weight
            self.last = nn.Linear(64, 3)

        def forward(self, x):
            return self.last(self.second(self.first(x.flatten(1)).relu()))

    run = train(make_settings(), build=lambda *_: Tied())
    assert run.finished().metrics["parameters"] == 64 * 64 + 64 + 64 + 64 * 3 + 3
    model = Tied()
    model.load_state_dict(run.weights(), strict=True)
    assert torch.equal(run.weights()["first.weight"], run.weights()["second.weight"])


def test_written_weights_give_the_written_predictions(train, make_settings, make_images, nets):
    data = make_images()
    settings = make_settings(norm="none")
    run = train(settings, data=data)

    class Shape:
        channels, image_size, num_classes = 1, (8, 8), 3

    model = nets["conv"](settings, Shape)
    model.load_state_dict(run.weights())
    model.eval()
    predictions = run.predictions()
    x = torch.from_numpy(data.train_images[predictions["indices"].numpy()]).float() / 255
    torch.testing.assert_close(model(x).half(), predictions["logits"], rtol=1e-2, atol=1e-3)


def test_lazy_layers_get_their_shapes_before_the_optimizer_sees_them(train, make_settings):
    run = train(
        make_settings(),
        build=lambda *_: nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)),
    )
    assert run.finished().metrics["parameters"] == 4 * 9 + 4 + 144 * 3 + 3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("dtype", "seen"), [("float32", torch.float32), ("float64", torch.float64)])
@pytest.mark.parametrize("norm", ["none", "standard"])
def test_the_model_sees_images_of_the_recipe_s_type(
    alone, make_settings, make_images, nets, channels, dtype, seen, norm
):
    types = set()

    class Spy(nn.Sequential):
        def forward(self, x):
            types.add(x.dtype)
            return super().forward(x)

    run = alone(
        make_settings(dtype=dtype, norm=norm, augment="flip+shift", epochs=1),
        data=make_images(channels=channels),
        build=lambda s, d: Spy(nets["conv"](s, d)),
    )
    assert types == {seen}
    assert {t.dtype for n, t in run.weights().items() if "batches" not in n} == {seen}


def test_bfloat16_computes_layers_in_bfloat16_and_keeps_weights_in_float32(alone, make_settings, nets):
    types = set()

    class Spy(nn.Sequential):
        def forward(self, x):
            y = super().forward(x)
            types.add(y.dtype)
            return y

    run = alone(make_settings(dtype="bfloat16", epochs=8), build=lambda s, d: Spy(nets["dense"](s, d)))
    assert types == {torch.bfloat16}
    assert {t.dtype for t in run.weights().values()} == {torch.float32}
    assert run.finished().metrics["val_accuracy"] > 0.5


def test_an_arithmetic_that_the_device_lacks_fails_the_lane_in_one_line(train, make_settings):
    assert train(make_settings(dtype="tf32")).end().message == "dtype=tf32: not on cpu"


def test_small_images_are_resized_to_what_the_model_takes(train, make_settings, make_images):
    sizes = set()

    def build(settings, data):
        sizes.add(data.image_size)
        return nn.Sequential(nn.Flatten(), nn.Linear(data.image_size[0] * data.image_size[1], 3))

    run = train(make_settings(), build=build, smallest_input=lambda _: (12, 5))
    assert run.finished().state is TrialState.COMPLETE
    assert sizes == {(12, 8)}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float64"])
def test_a_gpu_learns_what_the_cpu_learns(train, make_settings, dtype):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    run = train(make_settings(dtype=dtype, epochs=12), device="cuda:0")
    assert run.finished().metrics["val_accuracy"] >= 0.9


@pytest.mark.gpu
def test_a_gpu_equals_the_cpu_in_float64_where_no_masks_are_drawn(train, make_settings, nets):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    settings = make_settings(dtype="float64", augment="flip+shift", epochs=3)
    here = train(settings, build=nets["dense"])
    there = train(settings, build=nets["dense"], device="cuda:0")
    for name, tensor in here.weights().items():
        torch.testing.assert_close(there.weights()[name], tensor, rtol=1e-8, atol=1e-8)


@pytest.mark.gpu
def test_a_gpu_names_the_step_at_which_a_lane_diverged(train, make_settings, nets):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    settings = make_settings(optimizer="sgd", lr=1e30)
    here = train(settings, build=nets["dense"]).finished()
    there = train(settings, build=nets["dense"], device="cuda:0").finished()
    assert there.message == here.message


def test_each_image_is_shown_augmented_by_its_own_draw(alone, make_settings, make_images):
    """What the model sees in an epoch is the epoch's order, augmented as if it were one batch."""
    from gridsearch.training import augment, seeds
    from gridsearch.training.splits import split

    data = make_images()
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            if self.training:
                seen.append(x.detach().clone())
            return super().forward(x.flatten(1))

    settings = make_settings(augment="flip+shift", epochs=2, norm="none", dtype="float64")
    alone((settings, 5), data=data, build=lambda *_: Spy(64, 3))
    indices = split(data.train_labels, val=1 / 6, split_seed=0).train
    expected = []
    for epoch in (1, 2):
        order = torch.randperm(50, generator=seeds.generator(5, "order", epoch)).numpy()
        raw = torch.from_numpy(data.train_images[indices[order]]).permute(0, 2, 3, 1)
        drawn = augment.draw(
            "flip+shift", seed=5, epoch=epoch, count=50, image_size=(8, 8), device=torch.device("cpu")
        )
        expected.append(drawn.apply(raw, 0).permute(0, 3, 1, 2).double() / 255)
    assert torch.equal(torch.cat(seen), torch.cat(expected))


def test_events_of_a_lane_end_with_its_result(train, make_settings):
    run = train(make_settings(epochs=3), make_settings(epochs=1))
    for lane, epochs in ((0, 3), (1, 1)):
        kinds = [type(e) for e in run.events if e.trial == lane]
        assert kinds == [EpochEnded] * epochs + [TrialFinished]
