"""Ten networks on which no limit was fitted; their seeds were drawn when the limits stood."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from networks_parts import Attention, Network, Unit, chain, network, pooled, rescale
from torch import Tensor, nn


@network
class residual(Network):  # noqa: N801
    """Residual blocks whose branches differ in size from each other."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 24))
        self.stem = nn.Sequential(Unit(3, width, 2), Unit(width, width, 2))
        self.blocks = nn.ModuleList(
            nn.Sequential(Unit(width, width), Unit(width, width, act=None)) for _ in range(self.draw.randint(1, 3))
        )
        self.sizes = [self.draw.log(0.1, 10) for _ in self.blocks]
        self.fc = nn.Linear(width, num_classes)
        self.ratio = self.draw.log(1, 1000)

    def finish(self) -> None:
        for block in self.blocks:
            chain(list(block), lambda width: self.draw.factors(width, self.ratio))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for block, size in zip(self.blocks, self.sizes, strict=True):
            y = F.relu(y + size * block(y))
        return self.fc(pooled(y))


@network
class coordinates(Network):  # noqa: N801
    """Rows and columns are concatenated with the features, counted in units of 1 to 1000."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        self.width = self.draw.choice((16, 24, 32))
        self.stem, self.mix = Unit(3, self.width, 2), Unit(self.width + 2, self.width, 2)
        line = torch.linspace(-1, 1, 16)
        self.register_buffer("places", torch.stack(torch.meshgrid(line, line, indexing="ij"))[None])
        self.fc = nn.Linear(self.width, num_classes)

    def finish(self) -> None:
        unit = self.draw.log(1, 1000)
        with torch.no_grad():
            self.places *= unit
            self.mix[0].weight[:, self.width :] /= unit

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.fc(pooled(self.mix(torch.cat([y, self.places.expand(y.shape[0], -1, -1, -1)], 1))))


@network
class squeeze(Network):  # noqa: N801
    """Squeeze-and-excitation with hard-swish, after MobileNetV3."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        draw, width = self.draw, self.draw.choice((16, 24, 32))
        act, self.gate = draw.choice((nn.Hardswish, nn.SiLU, nn.ReLU)), draw.choice((torch.sigmoid, F.hardsigmoid))
        self.stem, self.body = Unit(3, width, 2, act=act), Unit(width, width, 2)
        self.less, self.more = nn.Conv2d(width, 8, 1), nn.Conv2d(8, width, 1)
        self.last, self.fc = Unit(width, width, kernel=1, act=act), nn.Linear(width, num_classes)
        self.ratio = draw.log(1, 1000)

    def finish(self) -> None:
        factors = self.draw.factors(self.body[1].num_features, self.ratio)
        rescale(self.body, [(self.less, 0), (self.last, 0)], factors)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.stem(x))
        y = y * self.gate(self.more(F.relu(self.less(y.mean((2, 3), keepdim=True)))))
        return self.fc(pooled(self.last(y)))


@network
class shifted(Network):  # noqa: N801
    """Attention whose scores have another offset in each row, of up to 1000, which softmax takes out again."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 32))
        self.stem = nn.Sequential(Unit(3, 16, 2), Unit(16, width, 2))
        self.attention, self.position = Attention(width, 2), nn.Parameter(torch.zeros(1, 64, width))
        self.fc = nn.Linear(width, num_classes)
        self.register_buffer("offset", torch.linspace(-1, 1, 64)[:, None] * self.draw.log(1, 1000))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).flatten(2).transpose(1, 2) + self.position
        return self.fc((y + 4 * self.attention(y, self.offset)).mean(1))


@network
class sum_pool(Network):  # noqa: N801
    """Mean and maximum beside a sum over all places, which is larger by their number."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        self.width = self.draw.choice((16, 24, 32))
        self.body = nn.Sequential(Unit(3, self.width, 2), Unit(self.width, self.width, 2))
        self.fc = nn.Linear(3 * self.width, num_classes)
        self.register_buffer("count", torch.ones(()))

    def finish(self) -> None:
        count = self.draw.log(1, 1000)
        with torch.no_grad():
            self.count *= count
            self.fc.weight[:, 2 * self.width :] /= count

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.fc(torch.cat([pooled(y), y.amax((2, 3)), pooled(F.relu(y - 0.5)) * self.count], 1))


@network
class offset(Network):  # noqa: N801
    """A constant of up to 300 is added to the features, and taken away by the bias of the layer that reads them."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 24, 32))
        self.body = nn.Sequential(Unit(3, width, 2), Unit(width, width, 2))
        self.mix, self.fc = nn.Conv2d(width, width, 1), nn.Linear(width, num_classes)
        self.register_buffer("added", torch.zeros(1, width, 1, 1))

    def finish(self) -> None:
        with torch.no_grad():
            self.added += self.draw.choice((-1, 1)) * self.draw.log(1, 300)
            self.mix.bias -= (self.mix.weight[:, :, 0, 0] * self.added.flatten()).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(pooled(F.relu(self.mix(self.body(x) + self.added))))


@network
class unnormed(Network):  # noqa: N801
    """No norm at all: each layer is made larger and the next smaller, as a whole or channel by channel."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 24, 32))
        self.body = nn.ModuleList(nn.Conv2d(n, width, 3, 2, 1) for n in (3, width, width))
        self.fc = nn.Linear(width, num_classes)
        self.whole, self.ratio = self.draw.random() < 0.4, self.draw.log(1, 1000)

    def finish(self) -> None:
        chain(
            [*self.body, self.fc],
            lambda width: torch.full((width,), self.ratio) if self.whole else self.draw.factors(width, self.ratio),
        )

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.body:
            x = F.relu(conv(x))
        return self.fc(pooled(x))


@network
class cosine(Network):  # noqa: N801
    """A cosine head: normalized features and weights, times a number; the features' norm is an exponent away."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width = self.draw.choice((16, 24, 32))
        self.body = nn.Sequential(Unit(3, width, 2), Unit(width, width, 2))
        self.weight = nn.Parameter(torch.randn(num_classes, width))
        self.times, self.power = self.draw.log(8, 32), self.draw.choice((1, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = pooled(self.body(x))
        for _ in range(self.power - 1):
            y = y * y
        return self.times * F.linear(F.normalize(y), F.normalize(self.weight))


@network
class vit(Network):  # noqa: N801
    """A small vision transformer: patches, a class token, LayerNorm, GELU; some channels of its stream are loud."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        width, depth = self.draw.choice((24, 32)), self.draw.randint(1, 2)
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token, self.position = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.randn(1, 65, width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "norm1": nn.LayerNorm(width), "attention": Attention(width, 2), "norm2": nn.LayerNorm(width),
                "up": nn.Linear(width, 2 * width), "down": nn.Linear(2 * width, width),
            })
            for _ in range(depth)
        )  # fmt: skip
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, num_classes)
        self.ratio = self.draw.log(1, 1000)

    def finish(self) -> None:
        for block in self.blocks:
            factors = self.draw.factors(len(self.norm.weight), self.ratio)
            rescale(block["norm1"], [(block["attention"].qkv, 0)], factors)
            rescale(block["norm2"], [(block["up"], 0)], factors)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1) + self.position
        for block in self.blocks:
            y = y + block["attention"](block["norm1"](y))
            y = y + block["down"](F.gelu(block["up"](block["norm2"](y))))
        return self.fc(self.norm(y[:, 0]))


@network
class dense(Network):  # noqa: N801
    """A dense block: everything before is concatenated, and each part is louder than the one before."""

    def __init__(self, num_classes: int = 10, seed: int = 0) -> None:
        super().__init__(seed)
        self.grows = self.draw.choice((8, 12, 16))
        self.stem = Unit(3, self.grows, 2)
        self.units = nn.ModuleList(Unit(self.grows * (index + 1), self.grows, 1 + (index == 0)) for index in range(3))
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(4 * self.grows, num_classes)

    def finish(self) -> None:
        ratio, layers = self.draw.log(1, 10), [self.stem, *self.units]
        for index, unit in enumerate(layers):
            readers = [(reader, index * self.grows) for reader in (*layers[index + 1 :], self.fc)]
            rescale(unit, readers, torch.full((self.grows,), ratio**index))

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.stem(x)]
        for unit in self.units:
            y = unit(torch.cat(parts, 1))
            parts = [self.pool(part) if part.shape[2] > y.shape[2] else part for part in parts] + [y]
        return self.fc(pooled(torch.cat(parts, 1)))
