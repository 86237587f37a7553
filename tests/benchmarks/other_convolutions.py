"""Convolutional networks as many people write them, each made from (channels, classes, (height, width))."""

import math

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn


class MnistExample(nn.Module):
    """The network of PyTorch's own MNIST example."""

    def __init__(self, channels, classes, size):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        height, width = ((n - 4) // 2 for n in size)
        self.fc1 = nn.Linear(64 * height * width, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = self.dropout1(x).flatten(1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return F.log_softmax(self.fc2(x), dim=1)


class OldLeNet(nn.Module):
    """LeCun et al. 1998 as textbooks write it: tanh and average pooling."""

    def __init__(self, channels, classes, size):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        height, width = ((n // 2 - 4) // 2 for n in size)
        self.dense = nn.Sequential(
            nn.Linear(16 * height * width, 120),
            nn.Tanh(),
            nn.Linear(120, 84),
            nn.Tanh(),
            nn.Linear(84, classes),
        )

    def forward(self, x):
        return self.dense(self.features(x))


def keras_cnn(channels, classes, size):
    """Return the network of Keras's old CIFAR-10 example."""

    def block(before, after):
        layers = [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.Conv2d(after, after, 3), nn.ReLU()]
        return [*layers, nn.MaxPool2d(2), nn.Dropout(0.25)]

    height, width = (((n - 2) // 2 - 2) // 2 for n in size)
    head = [
        nn.Flatten(),
        nn.Linear(64 * height * width, 512),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(512, classes),
    ]
    return nn.Sequential(*block(channels, 32), *block(32, 64), *head)


def all_convolutional(channels, classes, size):
    """Return a small network of Springenberg et al. 2015: strides in place of pooling."""
    del size
    layers, before = [], channels
    for after, kernel, stride in (
        (48, 3, 1),
        (48, 3, 2),
        (96, 3, 1),
        (96, 3, 2),
        (96, 1, 1),
        (classes, 1, 1),
    ):
        layers += [nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.ReLU()]
        before = after
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())


class PreActivation(nn.Module):
    """A block of He et al. 2016, with `groups` that of Xie et al. 2017, with `squeeze` that of Hu et al. 2018."""

    def __init__(self, before, after, stride, groups=1, squeeze=0, drop=0.0):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, groups=groups, bias=False)
        self.drop = drop
        self.shortcut = (
            nn.Conv2d(before, after, 1, stride, bias=False) if (stride, before) != (1, after) else None
        )
        self.gate = None
        if squeeze:
            inner = after // squeeze
            self.gate = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(after, inner, 1),
                nn.ReLU(),
                nn.Conv2d(inner, after, 1),
                nn.Sigmoid(),
            )

    def forward(self, x):
        out = F.relu(self.bn1(x))
        around = x if self.shortcut is None else self.shortcut(out)
        out = F.relu(self.bn2(self.conv1(out)))
        out = F.dropout(out, self.drop, self.training)
        out = self.conv2(out)
        if self.gate is not None:
            out = out * self.gate(out)
        return out + around


class Residual(nn.Module):
    """Three stages of blocks, each with half the size and twice the channels of the one before."""

    def __init__(self, channels, classes, size, *, width=16, depth=2, **block):
        super().__init__()
        del size
        self.stem = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        blocks, before = [], width
        for stage in range(3):
            for i in range(depth):
                after = width << stage
                blocks.append(PreActivation(before, after, 2 if stage and not i else 1, **block))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.fc(F.avg_pool2d(x, x.shape[2:]).view(x.size(0), -1))


class Dense(nn.Module):
    """Huang et al. 2017, small: each layer reads what all before it have written."""

    def __init__(self, channels, classes, size, *, growth=12, depth=4):
        super().__init__()
        del size
        width = 2 * growth
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for _ in range(3):
            layers = nn.ModuleList()
            for _ in range(depth):
                layers.append(
                    nn.Sequential(
                        nn.BatchNorm2d(width),
                        nn.ReLU(inplace=True),
                        nn.Conv2d(width, growth, 3, padding=1, bias=False),
                    )
                )
                width += growth
            self.blocks.append(layers)
            self.transitions.append(
                nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1))
            )
            width //= 2
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.stem(x)
        for layers, transition in zip(self.blocks, self.transitions, strict=True):
            for layer in layers:
                x = torch.cat([x, layer(x)], 1)
            x = F.avg_pool2d(transition(x), 2)
        return self.head(x.mean(dim=(2, 3)))


class Inverted(nn.Module):
    """A block of Sandler et al. 2018."""

    def __init__(self, before, after, stride, expand):
        super().__init__()
        inner = before * expand
        self.same = stride == 1 and before == after
        self.layers = nn.Sequential(
            nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(inplace=True),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(inplace=True),
            nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip

    def forward(self, x):
        return x + self.layers(x) if self.same else self.layers(x)


def small_mobilenet(channels, classes, size):
    """Return a MobileNetV2 of seven blocks."""
    del size
    plan = ((16, 1, 1), (24, 2, 4), (24, 1, 4), (32, 2, 4), (32, 1, 4), (64, 2, 4), (64, 1, 4))
    layers, before = [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()], 16
    for after, stride, expand in plan:
        layers.append(Inverted(before, after, stride, expand))
        before = after
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, classes)
    )


class Inception(nn.Module):
    """Szegedy et al. 2015, small: paths side by side."""

    def __init__(self, channels, classes, size):
        super().__init__()
        del size
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.parts = nn.ModuleList([self.paths(32), self.paths(64)])
        self.fc = nn.Linear(64, classes)

    @staticmethod
    def paths(before):
        def conv(a, b, kernel):
            return nn.Sequential(nn.Conv2d(a, b, kernel, padding=kernel // 2), nn.BatchNorm2d(b), nn.ReLU())

        return nn.ModuleList([
            conv(before, 16, 1),
            nn.Sequential(conv(before, 16, 1), conv(16, 24, 3)),
            nn.Sequential(conv(before, 8, 1), conv(8, 8, 5)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(before, 16, 1)),
        ])  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        for paths in self.parts:
            x = F.max_pool2d(torch.cat([path(x) for path in paths], dim=1), 2)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class ConvNext(nn.Module):
    """Blocks of Liu et al. 2022: depthwise 7x7, layer norm over channels, two dense layers, a learned scale."""

    class Block(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.conv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
            self.norm = nn.LayerNorm(dim, eps=1e-6)
            self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
            self.gamma = nn.Parameter(1e-2 * torch.ones(dim))

        def forward(self, x):
            y = self.norm(self.conv(x).permute(0, 2, 3, 1))
            y = self.gamma * self.down(F.gelu(self.up(y)))
            return x + y.permute(0, 3, 1, 2)

    def __init__(self, channels, classes, size, *, dim=48, depth=3):
        super().__init__()
        del size
        self.stem = nn.Conv2d(channels, dim, 4, stride=4)
        self.blocks = nn.Sequential(*[self.Block(dim) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x)).mean([-2, -1])))


class Skip(nn.Module):
    """A sum around what it holds."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


def conv_mixer(channels, classes, size, dim=64, depth=4, kernel=5, patch=4):
    """Return a network of Trockman and Kolter 2022, as they wrote it."""
    del size
    blocks = [
        nn.Sequential(
            Skip(nn.Sequential(nn.Conv2d(dim, dim, kernel, groups=dim, padding="same"), nn.GELU(), nn.BatchNorm2d(dim))),
            nn.Conv2d(dim, dim, 1), nn.GELU(), nn.BatchNorm2d(dim),
        )
        for _ in range(depth)
    ]  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(channels, dim, patch, stride=patch), nn.GELU(), nn.BatchNorm2d(dim), *blocks,
        nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(dim, classes),
    )  # fmt: skip


class SpatialTransformer(nn.Module):
    """PyTorch's tutorial: a network that first turns its image (Jaderberg et al. 2015)."""

    def __init__(self, channels, classes, size):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 10, 5), nn.Conv2d(10, 20, 5)
        self.drop = nn.Dropout2d()
        height, width = ((((n - 4) // 2) - 4) // 2 for n in size)
        self.fc1, self.fc2 = nn.Linear(20 * height * width, 50), nn.Linear(50, classes)
        self.localization = nn.Sequential(
            nn.Conv2d(channels, 8, 7), nn.MaxPool2d(2, 2), nn.ReLU(True),
            nn.Conv2d(8, 10, 5), nn.MaxPool2d(2, 2), nn.ReLU(True),
        )  # fmt: skip
        self.flat = 10 * math.prod(((n - 6) // 2 - 4) // 2 for n in size)
        self.fc_loc = nn.Sequential(nn.Linear(self.flat, 32), nn.ReLU(True), nn.Linear(32, 6))
        self.fc_loc[2].weight.data.zero_()
        self.fc_loc[2].bias.data.copy_(torch.tensor([1, 0, 0, 0, 1, 0], dtype=torch.float))

    def forward(self, x):
        theta = self.fc_loc(self.localization(x).reshape(-1, self.flat)).view(-1, 2, 3)
        x = F.grid_sample(x, F.affine_grid(theta, x.size(), align_corners=False), align_corners=False)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        x = F.dropout(F.relu(self.fc1(x.flatten(1))), training=self.training)
        return self.fc2(x)


class Blurred(nn.Module):
    """Max pooling that is blurred (Zhang 2019), and pooling with a learned power (Radenovic et al. 2019)."""

    def __init__(self, channels, classes, size, *, width=32):
        super().__init__()
        del size
        self.conv1, self.conv2 = (
            nn.Conv2d(channels, width, 3, padding=1),
            nn.Conv2d(width, 2 * width, 3, padding=1),
        )
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("blur", (row[:, None] * row / 16)[None, None])
        self.power = nn.Parameter(torch.tensor(3.0))
        self.fc = nn.Linear(2 * width, classes)

    def pool(self, x):
        x = F.max_pool2d(x, 2, stride=1)
        count = x.shape[1]
        return F.conv2d(x, self.blur.repeat(count, 1, 1, 1), stride=2, padding=1, groups=count)

    def forward(self, x):
        x = self.pool(self.conv1(x).relu())
        x = self.pool(self.conv2(x).relu())
        x = x.clamp(min=1e-6).pow(self.power).mean(dim=(2, 3)).pow(1 / self.power)
        return self.fc(x)


class Encoded(nn.Module):
    """A class read from the code of a small autoencoder's own image: down, up by transposed convolutions, down."""

    def __init__(self, channels, classes, size):
        super().__init__()
        del size
        self.down = nn.Sequential(
            nn.Conv2d(channels, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        )
        self.up = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        )
        self.fc = nn.Linear(48, classes)

    def forward(self, x):
        code = self.down(x)
        image = self.up(code)
        return self.fc(torch.cat([code.mean(dim=(2, 3)), image.amax(dim=(2, 3))], dim=1))
