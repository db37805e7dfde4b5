"""The runtime."""

from __future__ import annotations

from pathlib import Path

from edgekd.errors import UsageError
from edgekd.runtimes.base import Declared, LoadedPort, OnDevice
from edgekd.runtimes.snippets import Python

_PYTHON = """
network = Network(str(here / "{file}"))


def run({sample}):  # {taken}
    return next(iter(network.run({{network.ports_in[0]["name"]: {sample}}}).values()))
"""


class _Session:
    def __init__(self, path):
        from edgekd_npnet.device import Network

        self.network = Network(path)
        self.inputs, self.outputs = (
            tuple(LoadedPort(port["name"], tuple(port["shape"]), "float32") for port in ports)
            for ports in (self.network.ports_in, self.network.ports_out)
        )

    def run(self, inputs):
        return self.network.run(inputs)


class NpnetRuntime:
    """numpy, one step after the other."""

    label, format_label = "the numpy interpreter", "npnet"
    packages = ("edgekd-npnet", "numpy")
    suffixes = (".npnet",)
    layout = "NCHW"
    lacks_int8 = ()
    inside = None
    on_device = OnDevice(Path(__file__).with_name("device.py"), (Path(__file__).with_name("trivial.npnet"),))
    python = Python("from edgekd_npnet.device import Network", _PYTHON)
    cpp = kotlin = None

    def load(self, path, threads):
        return _Session(path)

    def files(self, path):
        return (path,)

    def check(self, path):
        import zipfile

        if not zipfile.is_zipfile(path):
            raise UsageError(f"{path} is not an npnet file", "give a file that edgekd has exported")
        return ()

    def declared(self, path):
        from edgekd_npnet.device import Network

        return {port["name"]: Declared(port["shape"], "float32") for port in Network(path).ports_in}
