"""The interpreter; it is sent to devices too, so it needs nothing but numpy and Python 3.8."""

import json
import time

OPERATIONS = {}


def operation(function):
    """Add an operation under the name of its function."""
    OPERATIONS[function.__name__] = function
    return function


@operation
def conv2d(x, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    import numpy as np

    (n, c, _, _), (out, _, kh, kw) = x.shape, weight.shape
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    rows = (x.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (x.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    parts = []
    for i in range(kh):
        for j in range(kw):
            top, left = i * dilation[0], j * dilation[1]
            parts.append(x[:, :, top : top + rows * stride[0] : stride[0], left : left + columns * stride[1] : stride[1]])
    seen = np.stack(parts, 2).reshape(n, groups, c // groups * kh * kw, rows * columns)
    y = np.matmul(weight.reshape(groups, out // groups, -1), seen).reshape(n, out, rows, columns)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


@operation
def linear(x, weight, bias=None):
    y = x @ weight.T
    return y if bias is None else y + bias


@operation
def relu(x):
    import numpy as np

    return np.maximum(x, 0)


@operation
def add(x, other):
    return x + other


@operation
def mean(x, dims, keepdim=False):
    return x.mean(axis=tuple(dims), keepdims=keepdim)


@operation
def reshape(x, shape):
    return x.reshape(shape)


@operation
def quantize(x, scale, zero_point, low, high):
    import numpy as np

    steps = np.rint(x * np.float32(1 / np.float32(scale))) + zero_point
    return np.clip(steps, low, high).astype(np.int8)


@operation
def dequantize(x, scale, zero_point):
    import numpy as np

    return (x.astype(np.float32) - zero_point) * np.float32(scale)


@operation
def dequantize_channels(x, scales, zero_points):
    import numpy as np

    shape = (-1,) + (1,) * (x.ndim - 1)
    return (x.astype(np.float32) - zero_points.reshape(shape)) * scales.reshape(shape).astype(np.float32)


class Network:
    """A loaded file."""

    def __init__(self, path):
        import numpy as np

        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: file[name] for name in file.files if name != "graph"}
            graph = json.loads(file["graph"].tobytes().decode())
        self.ports_in, self.ports_out, self.steps = graph["inputs"], graph["outputs"], graph["steps"]

    def run(self, inputs, times=None):
        """Return all outputs by name; with ``times``, add the seconds of each step there."""
        values = {port["name"]: inputs[port["name"]] for port in self.ports_in}
        values.update(self.arrays)
        for step in self.steps:
            before = time.perf_counter()
            tensors = [None if name is None else values[name] for name in step["inputs"]]
            values[step["name"]] = OPERATIONS[step["operation"]](*tensors, *step["options"])
            if times is not None:
                times[step["name"]] = times.get(step["name"], 0.0) + time.perf_counter() - before
        return {port["name"]: values[port["value"]].copy() for port in self.ports_out}


class Numpy:
    """What the agent measures."""

    def __init__(self, threads):
        import numpy as np

        self.version = "numpy " + np.__version__

    def load(self, path):
        self.network = Network(path)

    def unload(self):
        del self.network

    def inputs(self):
        return {port["name"]: (port["shape"], "float32", (0.0, 0)) for port in self.network.ports_in}

    def fit(self, feed):
        pass

    def run(self, feed):
        return next(iter(self.network.run(feed).values()))

    def outputs(self, feed):
        return self.network.run(feed)

    def operations(self, path, feed, runs):
        times, totals = [], {}
        for _ in range(runs):
            before = time.perf_counter()
            self.network.run(feed, totals)
            times.append(1000 * (time.perf_counter() - before))
        rows = [
            {"name": step["name"], "kind": step["operation"], "precision": "float32", "where": "numpy",
             "ms": 1000 * totals[step["name"]] / runs}
            for step in self.network.steps
        ]  # fmt: skip
        return {"operations": rows, "times": times, "source": "edgekd-npnet"}

    def default_precision(self, path):
        return ""

    def effective(self, path, feed):
        return {"threads": 1, "ops": {"float32": len(self.network.steps)}, "float_ops": {}}


PACKAGES = {"numpy": Numpy}
TRIVIAL = ("trivial.npnet",)
