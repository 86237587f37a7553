"""Odd networks: hooks on parameters, layers, their gradients and their states."""

from __future__ import annotations

import itertools

import torch

from tests.training.lanes.odd_networks import LATE, Net, oddity


@oddity("solo", "hook on its gradient")
def hook_on_a_parameter():
    net = Net()
    kept = torch.zeros(10, 64)
    kept[:, :6] = 1
    net.one.weight.register_hook(lambda g: g * kept.to(g.dtype))
    return net


@oddity("solo", "hook on its gradient")
def hook_on_a_parameter_that_acts_late():
    net, calls = Net(), itertools.count()
    net.one.weight.register_hook(lambda g: g * (next(calls) < LATE))
    return net


@oddity("solo", "hook on its gradient")
def hook_that_clips_what_is_large_alone():
    net = Net()
    net.two.weight.register_hook(lambda g: g.clamp(-0.02, 0.02))
    return net


@oddity("solo", "hook on its gradient")
def post_accumulate_hook():
    net = Net()

    def halve(p):
        p.grad.mul_(0.5)

    net.one.weight.register_post_accumulate_grad_hook(halve)
    return net


@oddity("solo", "hooks")
def forward_hook():
    net = Net()
    net.one.register_forward_hook(lambda m, i, o: o * 2)
    return net


@oddity("solo", "hooks")
def forward_hook_of_the_whole_model():
    net = Net()
    net.register_forward_hook(lambda m, i, o: o * 2)
    return net


@oddity("solo", "hooks")
def forward_hook_that_acts_late():
    net, calls = Net(), []

    def hook(module, given, result):
        calls.append(1)
        return result * (1 if len(calls) < LATE else 0.5)

    net.norm.register_forward_hook(hook)
    return net


@oddity("solo", "hooks")
def forward_pre_hook():
    net = Net()
    net.two.register_forward_pre_hook(lambda m, i: (i[0] * 3,))
    return net


@oddity("solo", "hooks")
def full_backward_hook():
    net = Net()
    net.two.register_full_backward_hook(lambda m, gi, go: (gi[0] * 0.1,))
    return net


@oddity("solo", "hooks")
def full_backward_pre_hook():
    net = Net()
    net.two.register_full_backward_pre_hook(lambda m, go: (go[0] * 0.1,))
    return net


@oddity("solo", "hooks")
def state_dict_hook():
    net = Net()
    net.register_state_dict_post_hook(lambda m, state, prefix, meta: state.update({"more": torch.ones(1)}))
    return net


class HookOnAnActivation(Net):
    def forward(self, x):
        h = self.hidden(x)
        if h.requires_grad:
            h.register_hook(lambda g: g * 0.1)
        return self.two(h)


oddity("solo", "register_hook")(HookOnAnActivation)
