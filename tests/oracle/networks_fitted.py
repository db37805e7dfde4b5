"""Twenty networks on which the limits of the default gates were fitted."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from networks_parts import Attention, Network, Unit, chain, network, pooled, rescale
from torch import Tensor, nn


@network
class plain(Network):  # noqa: N801  # named as in a recipe
    """Convolution, norm, one of five activations; what int8 was made for."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        draw, width = self.draw, self.draw.choice((16, 24, 32))
        act = draw.choice((nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU))
        middle = [Unit(width, width, act=act) for _ in range(draw.randint(1, 3))]
        self.body = nn.Sequential(Unit(3, width, 2, act=act), Unit(width, width, 2, act=act), *middle)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(self.body(x)))


@network
class deep_scales(Network):  # noqa: N801
    """Every layer's channels differ in range by a ratio from 1 to 1000, which one scale a tensor cannot follow."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 24, 32))
        middle = [Unit(width, width) for _ in range(self.draw.randint(1, 3))]
        self.body = nn.Sequential(Unit(3, width, 2), Unit(width, width, 2), *middle)
        self.fc = nn.Linear(width, num_classes)
        self.ratio = self.draw.log(1, 1000)

    def finish(self) -> None:
        chain([*self.body, self.fc], lambda width: self.draw.factors(width, self.ratio))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(self.body(x)))


@network
class cat(Network):  # noqa: N801
    """Two branches concatenated, one of them up to a thousand times as loud as the other."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        quiet, loud = self.draw.choice((16, 24)), self.draw.choice((2, 4, 8))
        self.a = nn.Sequential(Unit(3, 16, 2), Unit(16, quiet, 2))
        self.b = Unit(3, loud, 4)
        self.mix = Unit(quiet + loud, 32)
        self.fc = nn.Linear(32, num_classes)

    def finish(self) -> None:
        loud, ratio = self.b[1].num_features, self.draw.log(1, 1000)
        rescale(self.b, [(self.mix, self.a[1][1].num_features)], torch.full((loud,), ratio))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(self.mix(torch.cat([self.a(x), self.b(x)], 1))))


@network
class faint_gate(Network):  # noqa: N801
    """A sigmoid gate that is nearly closed everywhere, and a factor behind it that makes up for that."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width, self.closed = self.draw.choice((16, 24, 32)), self.draw.uniform(0, 9)
        self.body = nn.Sequential(Unit(3, width, 2), Unit(width, width, 2))
        self.gate = nn.Conv2d(width, width, 1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.fc(pooled(y * torch.sigmoid(self.gate(y) - self.closed)) * math.exp(self.closed))


@network
class masked(Network):  # noqa: N801
    """Self-attention within windows, by a constant mask of -4 to -1e9."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        draw, width = self.draw, self.draw.choice((16, 32))
        self.stem = nn.Sequential(Unit(3, 16, 2), Unit(16, width, 2))
        self.attention = Attention(width, draw.choice((1, 2)))
        self.position = nn.Parameter(torch.zeros(1, 64, width))
        self.fc = nn.Linear(width, num_classes)
        rows, columns = torch.arange(64) // 8, torch.arange(64) % 8
        reach = draw.choice((1, 2))
        apart = (rows[:, None] - rows).abs().maximum((columns[:, None] - columns).abs())
        self.register_buffer("mask", (apart > reach).float() * -draw.choice((4.0, 10.0, 30.0, 100.0, 1e4, 1e9)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).flatten(2).transpose(1, 2) + self.position
        return self.fc((y + 4 * self.attention(y, self.mask)).mean(1))


@network
class average_pool(Network):  # noqa: N801
    """Average pools of all sorts: with padding, counted or not, and adaptive ones."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        draw, width = self.draw, self.draw.choice((16, 24, 32))
        pool = draw.choice((nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False)))
        end = draw.choice((1, 2, 4))
        self.body = nn.Sequential(Unit(3, width, 2), pool, Unit(width, width), nn.AdaptiveAvgPool2d(end))
        self.fc = nn.Linear(width * end * end, num_classes)
        self.ratio = draw.log(1, 300)

    def finish(self) -> None:
        rescale(self.body[0], [(self.body[2], 0)], self.draw.factors(self.body[0][1].num_features, self.ratio))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).flatten(1))


@network
class unet(Network):  # noqa: N801
    """Down, up again by nearest neighbours, and a skip whose range differs from what it is concatenated with."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        self.width = self.draw.choice((12, 16, 24))
        self.stem, self.down = Unit(3, self.width, 2), Unit(self.width, self.width, 2)
        self.middle, self.join = Unit(self.width, self.width), Unit(2 * self.width, self.width)
        self.fc = nn.Linear(self.width, num_classes)

    def finish(self) -> None:
        ratio = torch.full((self.width,), self.draw.log(1, 1000))
        if self.draw.random() < 0.5:
            rescale(self.stem, [(self.down, 0), (self.join, 0)], ratio)
        else:
            rescale(self.middle, [(self.join, self.width)], ratio)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.stem(x)
        y = F.interpolate(self.middle(self.down(skip)), scale_factor=2, mode="nearest")
        return self.fc(pooled(self.join(torch.cat([skip, y], 1))))


@network
class shared(Network):  # noqa: N801
    """One convolution used several times in a row, of which each use has another range."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width, self.uses = self.draw.choice((16, 24)), self.draw.randint(2, 4)
        self.stem = nn.Sequential(Unit(3, width, 2), Unit(width, width, 2))
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width, num_classes)

    def finish(self) -> None:
        rescale(self.stem[0], [(self.stem[1], 0)], self.draw.factors(len(self.conv.bias), self.draw.log(1, 1000)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for _ in range(self.uses):
            y = y + F.relu(self.conv(y))
        return self.fc(pooled(y))


@network
class layernorm(Network):  # noqa: N801
    """ConvNeXt's block: depthwise convolution, LayerNorm over channels, a wide layer, a layer scale."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 24, 32))
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.ReLU())
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.ones(width))
        self.fc = nn.Linear(width, num_classes)
        self.act = self.draw.choice((F.gelu, F.relu))

    def finish(self) -> None:
        # LayerNorm's own factors are folded in the layer behind it, so this is what its channels look like.
        factors = self.draw.factors(len(self.norm.weight), self.draw.log(1, 1000))
        rescale(self.norm, [(self.up, 0)], factors)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        z = self.norm(self.depthwise(y).permute(0, 2, 3, 1))
        z = self.down(self.act(self.up(z))) * self.scale
        return self.fc(pooled(y + z.permute(0, 3, 1, 2)))


@network
class gem(Network):  # noqa: N801
    """Generalized mean pooling with an exponent of 1 to 8: a power before the mean, a root behind it."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 24, 32))
        self.body = nn.Sequential(Unit(3, width, 2), Unit(width, width, 2))
        self.p = nn.Parameter(torch.tensor(self.draw.uniform(1, 8)))
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).clamp(min=1e-6).pow(self.p)
        return self.fc(pooled(y).pow(1 / self.p))


@network
class outlier(Network):  # noqa: N801
    """One channel of one layer is up to a thousand times as large as the rest."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        self.width = self.draw.choice((16, 24, 32))
        self.body = nn.Sequential(Unit(3, self.width, 2), Unit(self.width, self.width, 2), Unit(self.width, self.width))
        self.fc = nn.Linear(self.width, num_classes)

    def finish(self) -> None:
        layers = [*self.body, self.fc]
        index, factors = self.draw.randrange(3), torch.ones(self.width)
        factors[self.draw.randrange(self.width)] = self.draw.log(1, 1000)
        rescale(layers[index], [(layers[index + 1], 0)], factors)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(self.body(x)))


@network
class inverted(Network):  # noqa: N801
    """MobileNetV2's blocks: expansion, depthwise convolution, a projection without activation, a sum."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width, wide = self.draw.choice((12, 16)), self.draw.choice((48, 64))
        act = self.draw.choice((nn.ReLU, nn.ReLU6))
        self.stem = Unit(3, width, 2, act=act)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                Unit(width, wide, kernel=1, act=act), Unit(wide, wide, stride, groups=wide, act=act),
                Unit(wide, width, kernel=1, act=None),
            )
            for stride in (2, 1, 1)
        )  # fmt: skip
        self.fc = nn.Linear(width, num_classes)
        self.ratio = self.draw.log(1, 1000) if act is nn.ReLU else 1.0

    def finish(self) -> None:
        if self.ratio > 1:
            for block in self.blocks:
                chain(list(block), lambda width: self.draw.factors(width, self.ratio))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for index, block in enumerate(self.blocks):
            y = y + block(y) if index else block(y)
        return self.fc(pooled(y))


@network
class product(Network):  # noqa: N801
    """Two branches multiplied, whose channels differ in range one way and the other."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        self.width = self.draw.choice((16, 24, 32))
        self.stem = Unit(3, self.width, 2)
        self.a, self.b = Unit(self.width, self.width, 2), Unit(self.width, self.width, 2)
        self.fc = nn.Linear(self.width, num_classes)

    def finish(self) -> None:
        factors = self.draw.factors(self.width, self.draw.log(1, 1000))
        rescale(self.a, [], factors)
        rescale(self.b, [], 1 / factors)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.fc(pooled(self.a(y) * self.b(y)))


@network
class query(Network):  # noqa: N801
    """Attention pooling by a learned query over 16, 64 or 256 places, sharp or nearly flat."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width, stride = self.draw.choice((16, 32)), self.draw.choice((1, 2, 4))
        self.stem = nn.Sequential(Unit(3, 12, 2), Unit(12, width, stride))
        self.query = nn.Parameter(torch.randn(1, 1, width) * self.draw.log(0.01, 3))
        self.key, self.value, self.fc = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, num_classes)

    def finish(self) -> None:
        factors = self.draw.factors(self.key.in_features, self.draw.log(1, 1000))
        rescale(self.stem[1], [(self.key, 0), (self.value, 0)], factors)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).flatten(2).transpose(1, 2)
        weights = (self.query.expand(y.shape[0], -1, -1) @ self.key(y).transpose(1, 2)).softmax(-1)
        return self.fc((weights @ self.value(y))[:, 0])


@network
class ceil_pool(Network):  # noqa: N801
    """Max-pools whose last window reaches over the edge."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 24, 32))
        pool = self.draw.choice((nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(3, 2, 1)))
        self.first, self.pool, self.second, self.third = Unit(3, width, 2), pool, Unit(width, width), Unit(width, width)
        self.fc = nn.Linear(width, num_classes)
        self.ratio = self.draw.log(1, 1000)

    def finish(self) -> None:
        chain([self.first, self.second, self.third], lambda width: self.draw.factors(width, self.ratio))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(self.third(self.pool(self.second(self.pool(self.first(x)))))))


@network
class resize(Network):  # noqa: N801
    """Nearest neighbours by one and a half, and a sum with what was there before."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        self.width = self.draw.choice((16, 24))
        self.stem = nn.Sequential(Unit(3, self.width, 2), Unit(self.width, self.width, 2))
        self.up, self.side = Unit(self.width, self.width), Unit(3, self.width, kernel=1)
        self.fc = nn.Linear(2 * self.width, num_classes)
        self.ratio = self.draw.log(1, 1000)

    def finish(self) -> None:
        rescale(self.side, [(self.fc, self.width)], torch.full((self.width,), self.ratio))

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(self.stem(x), scale_factor=1.5, mode="nearest")
        side = F.interpolate(self.side(x[:, :, ::4, ::4]), scale_factor=1.5, mode="nearest")
        return self.fc(pooled(torch.cat([self.up(y), side], 1)))


@network
class tied(Network):  # noqa: N801
    """Two modules with one weight, on the image at two sizes."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 24))
        self.stem = Unit(3, width, 2)
        self.near, self.far = nn.Conv2d(width, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)
        self.far.weight = self.near.weight
        self.fc = nn.Linear(2 * width, num_classes)
        self.ratio = self.draw.log(1, 1000)

    def finish(self) -> None:
        rescale(self.stem, [(self.near, 0)], self.draw.factors(self.near.out_channels, self.ratio))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        near, far = F.relu(self.near(y)), F.relu(self.far(F.max_pool2d(y, 2)))
        return self.fc(torch.cat([pooled(near), pooled(far)], 1))


@network
class groupnorm(Network):  # noqa: N801
    """Groups are normalized, not batches; the norm stays in float, the tensors around it do not."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width, groups = self.draw.choice((16, 32)), self.draw.choice((1, 4, 8))
        self.a, self.b, self.c = (nn.Conv2d(n, width, 3, 2, 1) for n in (3, width, width))
        self.norms = nn.ModuleList(nn.GroupNorm(groups, width) for _ in range(3))
        self.fc = nn.Linear(width, num_classes)
        self.ratio = self.draw.log(1, 1000)

    def finish(self) -> None:
        for norm, reader in zip(self.norms, (self.b, self.c, self.fc), strict=True):
            rescale(norm, [(reader, 0)], self.draw.factors(norm.num_channels, self.ratio))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip((self.a, self.b, self.c), self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return self.fc(pooled(x))


@network
class logit_offset(Network):  # noqa: N801
    """All logits are moved by one number of up to 300: the classes stay, their steps grow."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 24, 32))
        self.body = nn.Sequential(Unit(3, width, 2), Unit(width, width, 2), Unit(width, width))
        self.fc = nn.Linear(width, num_classes)

    def finish(self) -> None:
        with torch.no_grad():
            self.fc.bias += self.draw.choice((-1, 1)) * self.draw.log(1, 300)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(self.body(x)))


@network
class deep(Network):  # noqa: N801
    """Many narrow layers without a sum, each of which adds its rounding."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width, depth = self.draw.choice((12, 16)), self.draw.randint(6, 14)
        middle = [Unit(width, width) for _ in range(depth)]
        self.body = nn.Sequential(Unit(3, width, 2), Unit(width, width, 2), *middle)
        self.fc = nn.Linear(width, num_classes)
        self.ratio = self.draw.log(1, 100)

    def finish(self) -> None:
        chain([*self.body, self.fc], lambda width: self.draw.factors(width, self.ratio))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(self.body(x)))
