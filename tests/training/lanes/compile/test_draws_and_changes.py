"""Random functions, changes in place and more of users' own code: their lanes train as a pack, and as each does alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training import method_of
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from tests.training.compilers import needs_compiler
from tests.training.lanes.test_real_networks import hold
from tests.training.plain_loop import train_plainly


class Net(nn.Module):
    """A network around functions of (its layers, maps, whether it trains), one after the other."""

    def __init__(self, *functions):
        super().__init__()
        self.conv, self.more, self.out = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        self.functions = functions

    def forward(self, x):
        x = self.conv(x)
        for function in self.functions:
            x = function(self, x, self.training)
        return self.out(x.mean((2, 3)))


# Random functions: stochastic depth as timm has it and as users write it, noise, masks


def drop_path(net, x, training, keep=0.7):
    if not training:
        return x + net.more(x)
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    random_tensor = x.new_empty(shape).bernoulli_(keep)
    if keep > 0.0:
        random_tensor.div_(keep)
    return x + net.more(x) * random_tensor


def floored(net, x, training, keep=0.7):
    if not training:
        return x
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    random_tensor = keep + torch.rand(shape, dtype=x.dtype, device=x.device)
    random_tensor.floor_()
    return x + net.more(x).div(keep) * random_tensor


def compared(net, x, training):
    return x + net.more(x) * (torch.rand(x.size(0), 1, 1, 1) < 0.7) if training else x


def drawn_by_bernoulli(net, x, training):
    ones = torch.full((x.shape[0], 1, 1, 1), 0.7, dtype=x.dtype)
    return x + net.more(x) * torch.bernoulli(ones) / 0.7 if training else x


def dropped_ones(net, x, training):
    return x * F.dropout(torch.ones(x.shape[0], *x.shape[1:], dtype=x.dtype), 0.2, training=training)


def one_number(net, x, training):
    if not training:
        return x
    scale = torch.empty(1)
    scale.uniform_(0.9, 1.1)
    return x * scale * torch.rand(())


def noise(net, x, training):
    return x + 0.1 * torch.randn(*x.shape) + torch.randn_like(net.more.bias)[:, None, None] if training else x


def rows_set_to_zero(net, x, training):
    if not training:
        return x
    mask = torch.ones(x.shape[0], 1, 1, 1, dtype=x.dtype)
    mask[torch.rand(x.shape[0]) < 0.3] = 0
    return x * mask


def shuffled(net, x, training):
    return F.rrelu(x[torch.randperm(x.shape[0])], training=training) if training else F.rrelu(x)


DRAWS = {
    "stochastic depth": (drop_path, floored, compared, drawn_by_bernoulli),
    "noise": (one_number, noise, dropped_ones),
    "masks": (rows_set_to_zero, shuffled, drop_path),
}


@pytest.mark.parametrize("name", DRAWS)
def test_lanes_of_a_pack_draw_what_each_draws_alone(name, make_settings, make_images):
    assert hold(lambda: Net(*DRAWS[name]), make_settings, make_images(18)) == "stacked"


def test_a_lane_that_draws_goes_on_the_same_when_others_end_and_in_another_pack(make_settings, make_images):
    images, precision = make_images(18), Precision.of("float64", torch.device("cpu"))
    lanes = [
        make_settings(dtype="float64", batch=8, epochs=3, optimizer="sgd", lr=0.01 * i) for i in (1, 2, 3)
    ]
    data = ResidentCache(images, device="cpu")(lanes[0])

    def pack(*chosen):
        models = [
            build_network(lanes[k], k, data, lambda *_: Net(drop_path, noise), precision) for k in chosen
        ]
        return PackProgram([Member(lanes[k], k) for k in chosen], models, data, precision)

    first, second = pack(0, 1, 2), pack(1, 2)
    losses = [first.train_epoch()[2].loss]
    first.compact([2])
    losses.append(first.train_epoch()[0].loss)
    second.load_lane_state(0, Member(lanes[2], 2), first.lane_state(0))
    losses.append(second.train_epoch()[0].loss)
    plain = train_plainly(lambda: Net(drop_path, noise), lanes[2], 2, images)
    assert losses == pytest.approx(plain.losses, rel=1e-9)


def divided_first(net, x, training):
    if not training:
        return x + net.more(x)
    return x + net.more(x).div(0.7) * torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype).bernoulli_(0.7)


def drawn_before_another(net, x, training):
    if not training:
        return x + net.more(x)
    mask = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.7)
    return x + F.dropout(net.more(x), 0.5) * (mask / 0.7)


def not_made_larger(net, x, training):
    if not training:
        return x + net.more(x)
    return x + net.more(x) * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(0.7)


@needs_compiler
@pytest.mark.parametrize(
    ("function", "planned"),
    [(drop_path, True), (divided_first, True), (drawn_before_another, False), (not_made_larger, False)],
)
def test_stochastic_depth_is_a_compiled_step_where_that_draws_and_computes_the_same(
    function, planned, make_settings, make_images
):
    images, precision = make_images(18), Precision.of("float64", torch.device("cpu"))
    settings = make_settings(dtype="float64", batch=8, optimizer="sgd", lr=0.01)
    data = ResidentCache(images, device="cpu")(settings)
    model = build_network(settings, 4, data, lambda *_: Net(function), precision)
    program = PackProgram([Member(settings, 4)], [model], data, precision)
    assert program.planned is planned
    losses = [program.train_epoch()[0].loss for _ in range(2)]
    plain = train_plainly(lambda: Net(function), settings, 4, images)
    assert losses == pytest.approx(plain.losses, rel=1e-9)


def decided(net, x, training):
    return x * 0 if training and torch.rand(1) < 0.3 else x


def drawn_to_a_size(net, x, training):
    return x * torch.rand(int(torch.randint(1, 4, (1,)))).mean() if training else x


def always(net, x, training):
    return x + torch.randn_like(x)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (decided, "its forward decides by numbers that it draws (rand)"),
        (drawn_to_a_size, "its forward decides by numbers that it draws (randint)"),
        (always, "its forward draws random numbers in evaluation too (randn_like)"),
    ],
)
def test_what_no_pack_can_draw_trains_alone_and_is_named(function, reason, make_settings, make_images):
    data = ResidentCache(make_images(18), device="cpu")
    method, words = method_of(make_settings(), data=data, build=lambda *_: Net(function), device="cpu")
    assert method == "solo"
    assert words.startswith(f"{reason}. To change that: ")


# Changes in place


def bound_twice(net, x, training):
    y = net.more(x)
    z = y
    z += 1
    return y * z


def shortcut(net, x, training):
    y = net.more(x)
    identity = y
    y *= 2
    y += x.relu()
    return y - identity * 0.5


def parts_set(net, x, training):
    y = net.more(x) * 1
    y[:, 0] += 1
    y[:, 1:3] = x[:, 1:3].tanh()
    y[y < 0] = 0
    return y


def summed_up(net, x, training):
    total = torch.zeros_like(x)
    count = x.shape[1]
    half = count
    half //= 2
    for _ in range(half):
        total += net.more(x)
        total **= 2
    return total / count


def scaled_rows(net, x, training):
    first, second = torch.stack([x, net.more(x)]).mul(2).flatten(1).view(2, *x.shape).select(0, 0), x * 1
    first *= 3
    return first + second


def masks_joined(net, x, training):
    y = net.more(x)
    high, low = y > -0.5, y < 0.5
    both, either = high & low, high | low  # `and_` and `or_`, as Python calls them, change nothing
    return y * both + x * high * either


CHANGES = (bound_twice, shortcut, parts_set, summed_up, scaled_rows, masks_joined)


def test_what_code_changes_in_place_is_changed_under_all_its_names(make_settings, make_images):
    assert hold(lambda: Net(*CHANGES), make_settings, make_images(18)) == "stacked"


def changed_under_a_view(net, x, training):
    y = net.more(x)
    rows = y.flatten(2)
    y += 1
    return rows[..., None] + y.mean()


def changed_by_a_view(net, x, training):
    y = net.more(x)
    rows = y.flatten(2)
    rows += 1
    return y


@pytest.mark.parametrize("function", [changed_under_a_view, changed_by_a_view])
def test_a_change_that_is_read_through_another_view_is_computed_as_the_module_does(
    function, make_settings, make_images
):
    assert hold(lambda: Net(function), make_settings, make_images(18)) == "vmap"


# More of what is in users' code


class WithDefaults(Net):
    """More arguments than the images, all with defaults, and a weight norm, which has a hook on loading alone."""

    def __init__(self):
        super().__init__()
        self.more = nn.utils.parametrizations.weight_norm(self.more)

    def forward(self, x, *rest, mask=None, features: bool = False, **options):
        x = self.more(self.conv(x))
        if mask is not None or rest or options:
            x = x * mask
        return x if features else self.out(x.mean((2, 3)))


def test_arguments_with_defaults_and_a_weight_norm_are_traced(make_settings, make_images):
    assert hold(WithDefaults, make_settings, make_images(18)) == "stacked"


def cast(net, x, training):
    with torch.autocast("cpu", torch.bfloat16):
        return net.more(x).to(x.dtype)


def not_cast(net, x, training):
    with torch.autocast("cpu", enabled=False):
        return net.more(x)


@pytest.mark.parametrize(("function", "method"), [(cast, "vmap"), (not_cast, "stacked")])
def test_an_arithmetic_that_code_chooses_for_itself_is_kept(function, method, make_settings, make_images):
    data = ResidentCache(make_images(18), device="cpu")
    found = method_of(make_settings(), data=data, build=lambda *_: Net(function), device="cpu")
    assert found[0] == method, found
