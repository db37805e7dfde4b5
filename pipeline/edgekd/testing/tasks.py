"""The conformance suite of tasks."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.errors import DataError
from edgekd.recipe.loss import Need
from edgekd.registry import metrics, tasks
from edgekd.task.base import BATCH, Samples, Signature, Task
from edgekd.testing.suite import Suite
from edgekd.testing.words import refused

N = 24
GIVEN = {*get_args(Need)}


class TaskSuite(Suite):
    """Checks of a task.

    Two attributes describe samples of the task: ``samples``, and ``others``, which it has to refuse. Override
    :meth:`outputs` where its outputs are more than numbers of the port's shape, and :meth:`targets` where its targets are
    neither labels of the classes nor numbers of the shape ``samples.target``.

    Attributes:
        samples: Facts of data that the task is for.
        others: Facts of data that it is not for.
    """

    registry = tasks
    samples: ClassVar[Samples]
    others: ClassVar[Samples] = Samples({"nothing": ((), "bool")})

    def entry(self) -> Task:
        """Return the task."""
        found: Task = tasks.get(self.name)()
        return found

    def signature(self) -> Signature:
        """Return the signature for the samples."""
        assert hasattr(type(self), "samples"), "give the suite samples of your task: samples = Samples({...})"
        return self.entry().signature(self.samples)

    def targets(self) -> NDArray[Any]:
        """Return targets of 24 samples."""
        if self.samples.classes:
            return np.arange(N, dtype=np.int64) % len(self.samples.classes)
        return np.random.default_rng(1).normal(size=(N, *self.samples.target)).astype(np.float32)

    def outputs(self, seed: int = 2) -> dict[str, NDArray[Any]]:
        """Return outputs of a network for 24 samples, by name."""
        random = np.random.default_rng(seed)
        return {port.name: random.normal(size=port.shape(N)).astype(port.dtype) for port in self.signature().outputs}

    def test_facts(self) -> None:
        """Kind, docstring and metrics are there."""
        task = self.entry()
        assert task.kind == self.name, f"kind is {task.kind!r}: make it {self.name!r}, the task's name in recipes"
        assert type(task).__doc__, "write a docstring: what goes in, what comes out, and what is learned"
        assert task.metrics, "give at least one metric: the first decides which epoch is best"
        unknown = sorted({*task.gives} - GIVEN)
        assert not unknown, f"gives has {', '.join(unknown)}: a loss can need {' or '.join(sorted(GIVEN))}"
        names = [metric.name for metric in task.metrics]
        assert len({*names}) == len(names), f"two metrics have one name: {names}"
        lost = [metric.name for metric in (*task.metrics, task.agreement) if metric.name not in metrics]
        assert not lost, f"register these metrics, gates name them: {', '.join(lost)}"

    def test_signature(self) -> None:
        """The signature has the samples' inputs and comes out the same each time; the batch is open."""
        found = self.signature()
        assert found == self.signature(), "the signature differs from call to call"
        assert [port.name for port in found.inputs] == [*self.samples.inputs], (
            f"inputs are {[port.name for port in found.inputs]}, in a sample {[*self.samples.inputs]}: use one name"
        )
        for port in found.inputs:
            shape, dtype = self.samples.inputs[port.name]
            assert port.dtype == dtype, f"input {port.name} is {port.dtype}, in a sample {dtype}"
            assert port.dims[1:] == tuple(shape), f"input {port.name} is {port.dims[1:]}, in a sample {shape}"
        fixed = [port.name for port in (*found.inputs, *found.outputs) if port.dims[:1] != (BATCH,)]
        assert not fixed, f"the first dimension of {', '.join(fixed)} is the batch: dims = ('N', …)"

    def test_others(self) -> None:
        """Samples of another kind are refused in words."""
        with refused(f"a sample of {dict(self.others.inputs)}", DataError):
            self.entry().signature(self.others)

    def test_metrics(self) -> None:
        """Each metric measures outputs of the signature against targets of the task, or says None."""
        outputs, targets, primary = self.outputs(), self.targets(), self.signature().primary
        for metric in self.entry().metrics:
            rows = metric.per_sample(outputs, targets, primary)
            assert rows is None or len(rows) == N, f"metric {metric.name} gives {rows} for {N} samples"
            assert rows is None or np.isfinite(metric.reduce(rows)), f"metric {metric.name} is not finite"
        first = self.entry().metrics[0]
        assert first.per_sample(outputs, targets, primary) is not None, f"the first metric, {first.name}, measures nothing"

    def test_agreement(self) -> None:
        """Outputs agree with themselves at best."""
        agreement, primary = self.entry().agreement, self.signature().primary
        values = []
        for outputs in (self.outputs(), self.outputs(3)):
            rows = agreement.per_sample(outputs, self.outputs(), primary)
            assert rows is not None, f"the agreement, {agreement.name}, measures nothing"
            values.append(agreement.reduce(rows))
        same, other = values
        better = same > other if agreement.better == "higher" else same < other
        assert better, f"{agreement.name} of outputs with themselves is {same:g}, with others {other:g}: turn better round"

    def test_stratum(self) -> None:
        """The validation split is balanced by a whole number for each sample, or by nothing."""
        found = self.entry().stratum(self.targets())
        if found is not None:
            assert found.shape == (N,), f"stratum is {found.shape}: give a number for each of {N} samples, or None"
            assert found.dtype.kind in "iu", f"stratum is {found.dtype}: give whole numbers, such as a class"

    def test_criterion(self) -> None:
        """The loss with the true targets is a finite scalar, and training by it makes the first metric better."""
        task, primary, targets = self.entry(), self.signature().primary, self.targets()
        metric, found = task.metrics[0], []
        x, target = torch.from_numpy(self.outputs()[primary]).requires_grad_(), torch.from_numpy(targets)
        for _ in range(21):
            rows = metric.per_sample({**self.outputs(), primary: x.detach().numpy()}, targets, primary)
            assert rows is not None, f"the first metric, {metric.name}, measures nothing"
            found.append(metric.reduce(rows))
            value = task.criterion(x, target, smoothing=0.0)
            assert tuple(value.shape) == (), f"criterion returns shape {tuple(value.shape)}: return the mean over the batch"
            assert bool(value.isfinite()), f"criterion is {value.item()} for ordinary outputs"
            (gradient,) = torch.autograd.grad(value, x)
            x = (x - 0.5 * gradient / gradient.norm().clamp(min=1e-12)).detach().requires_grad_()
        better = found[-1] > found[0] if metric.better == "higher" else found[-1] < found[0]
        assert better, (
            f"20 steps against its gradient take {metric.name} from {found[0]:g} to {found[-1]:g}, and {metric.better} is "
            "better: check the criterion's sign"
        )

    def test_mean(self) -> None:
        """The criterion is the mean over the batch: the same for a batch given twice, and of every sample."""
        task, primary, targets = self.entry(), self.signature().primary, torch.from_numpy(self.targets())
        x = torch.from_numpy(self.outputs()[primary])
        once = float(task.criterion(x, targets, smoothing=0.0))
        twice = float(task.criterion(torch.cat([x, x]), torch.cat([targets, targets]), smoothing=0.0))
        assert np.isclose(twice, once, rtol=1e-4), (
            f"criterion is {once:g}, and {twice:g} of the same batch twice: return the mean over the batch, not the sum"
        )

        def gradient(among: torch.Tensor) -> torch.Tensor:
            given = x.clone().requires_grad_()
            return torch.autograd.grad(task.criterion(given, among, smoothing=0.0), given)[0].reshape(N, -1)

        found = gradient(targets)
        unread = [at for at in range(N) if not found[at].any()]
        assert not unread, f"the gradient of samples {unread} is 0: the criterion has to read every sample of the batch"
        others = gradient(torch.cat([targets[:1], targets[1:2].expand_as(targets[1:])]))
        assert torch.allclose(found[0], others[0], rtol=1e-4, atol=1e-7), (
            "a sample's gradient changes with the targets of the others: each output is compared with every target, such as "
            "(N, 1) with (N); give both one shape"
        )

    def test_builder(self) -> None:
        """Arguments of the network's builder are names and plain values: they are part of the cache key."""
        found = self.entry().builder_args(self.samples)
        odd = [name for name, value in found.items() if not isinstance(value, int | float | str | bool | tuple)]
        assert not odd, f"builder_args has {', '.join(odd)}: give numbers and texts alone"
