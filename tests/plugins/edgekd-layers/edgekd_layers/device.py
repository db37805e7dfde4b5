"""Layers on a device: numpy and the standard library."""


class Layers:
    """The layers with numpy."""

    def __init__(self, threads):
        import numpy

        self.np, self.version = numpy, "layers with numpy " + numpy.__version__

    def load(self, path):
        with self.np.load(path, allow_pickle=False) as file:
            count = (len(file.files) - 1) // 2
            self.layers = [(file[f"weight{at}"], file[f"bias{at}"]) for at in range(count)]
            self.shape = [int(side) for side in file["shape"]]

    def unload(self):
        del self.layers

    def inputs(self):
        return {"input": (self.shape, "float32", (0.0, 0))}

    def fit(self, feed):
        """Every size is fixed."""

    def run(self, feed):
        x = feed["input"].reshape(1, -1)
        for at, (weight, bias) in enumerate(self.layers):
            x = (x if at == 0 else self.np.maximum(x, 0)) @ weight.T + bias
        return x

    def outputs(self, feed):
        return {"logits": self.run(feed)}

    def operations(self, path, feed, runs):
        return {"why": self.version + " does not time its operations"}

    def default_precision(self, path):
        return ""

    def effective(self, path, feed):
        return {"threads": None, "delegates": None, "ops": {"float32": len(self.layers)}, "float_ops": {}}


PACKAGES = {"numpy": Layers}
TRIVIAL = ("trivial.layers",)
