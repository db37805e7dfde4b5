"""The conformance suite of losses: each is tried on small networks, through the terms of a real training."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edgekd.distill.outputs import Batch, Facts, Reusing
from edgekd.distill.terms import Terms
from edgekd.recipe.loss import FeatureLoss, Loss
from edgekd.registry import losses
from edgekd.taps.taps import Tapped
from edgekd.testing import networks
from edgekd.testing.suite import Suite

BATCH, STEPS, LATER = 8, 10, 1000.0
"""Samples of a batch; steps in which a loss has to fall; an epoch at which every warm-up has ended."""
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Trial:
    """A loss between two networks, as a training has it.

    Attributes:
        loss: The loss with its options.
        terms: The training loss, of this loss alone.
        student: Network that is trained; gives its logits and the features that the loss compares.
        teacher: Network that is learned from; likewise.
    """

    loss: Loss
    terms: Terms
    student: Tapped
    teacher: Tapped

    def outputs(self, images: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the student's and the teacher's logits and features, the teacher's without a gradient."""
        with torch.no_grad():
            theirs = self.teacher(images)
        ours: tuple[Tensor, ...] = self.student(images)
        return ours, theirs

    def value(self, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the weighted loss; what it draws is the same each time."""
        torch.manual_seed(1)
        values: tuple[Tensor, ...] = self.terms(ours, theirs, batch, LATER)
        return values[0]

    def gradients(self, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the weighted loss, whose gradients are then in the student, the adapters and the outputs."""
        value = self.value(ours, theirs, batch)
        torch.autograd.backward(value)
        return value

    def first_value(self, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], batch: Batch) -> float:
        """Return the weighted loss at the first step: an adapter may remember what it has seen."""
        return float(replace(self, terms=copy.deepcopy(self.terms)).value(ours, theirs, batch).detach())


class LossSuite(Suite):
    """Conformance suite of losses. In two lines: ``class TestMine(LossSuite): name = "mine"``.

    Attributes:
        options: Options of the loss in the recipe that the checks run with, beside its kind.
    """

    registry = losses
    options: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def variants(cls) -> Mapping[str, Iterable[str]]:
        """The half-precision types that mixed precision has."""
        return {"half": HALF}

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Return a student and a teacher of 3×16×16 images and 4 classes; override it for a loss that needs others."""
        if self.entry().reads == "attention":
            return networks.pair(networks.Transformer, width=32)
        return networks.pair(networks.Convolutional, width=8)

    def entry(self) -> type[Loss]:
        """Return the registered class."""
        found = losses.get(self.name)
        assert isinstance(found, type), f"register the class of {self.name}, not {found!r}"
        assert issubclass(found, Loss), f"make {found.__name__} a subclass of edgekd.recipe.loss.Loss"
        return found

    def trial(self, student: nn.Module | None = None) -> Trial:
        """Return the loss between fresh networks, which always have the same weights; or of a given student."""
        loss = self.entry().model_validate({"kind": self.name, **self.options})
        (fresh, teacher), (images, batch) = self.networks(), self.batch()
        torch.manual_seed(0)
        student = fresh if student is None else student
        if isinstance(loss, Reusing):
            student = loss.student(student, teacher, images[:1])
        facts = Facts(networks.CLASSES, BATCH, batch.target)
        terms = Terms([loss], student, teacher, images[:1], facts).train()
        return Trial(loss, terms, Tapped(student, terms.student_paths).train(), Tapped(teacher, terms.teacher_paths))

    def batch(self) -> tuple[Tensor, Batch]:
        """Return images and what belongs to them; two images of each class, which are all images of the training."""
        images = torch.randn(BATCH, 3, networks.SIZE, networks.SIZE, generator=torch.Generator().manual_seed(0))
        return images, Batch(torch.arange(BATCH) % networks.CLASSES, torch.arange(BATCH))

    @pytest.fixture
    def tried(self) -> tuple[Trial, tuple[Tensor, ...], tuple[Tensor, ...], Batch]:
        """A trial with the outputs of both networks and their batch."""
        trial, (images, batch) = self.trial(), self.batch()
        return trial, *trial.outputs(images), batch

    def test_documented(self) -> None:
        """The docstring names the paper, and every option says what it is."""
        kind = self.entry()
        first = (kind.__doc__ or "").strip().splitlines()[:1]
        assert vars(kind).get("__doc__"), f"write a docstring for {kind.__name__}: `edgekd list losses` shows it"
        assert re.search(r"\b(19|20)\d\d\b", first[0]), (
            f"name authors and year of the paper in the first line of the docstring, which is {first[0]!r}"
        )
        own = {name: field for name, field in kind.model_fields.items() if name not in Loss.model_fields}
        silent = [name for name, field in own.items() if not field.description and name != "layers"]
        assert not silent, f"write a docstring below these options: {', '.join(silent)}"

    def test_options(self) -> None:
        """``{kind: NAME}`` is enough; wrong options are refused; what is written to a lock is read back."""
        kind = self.entry()
        try:
            loss = kind.model_validate({"kind": self.name})
        except ValidationError as error:
            raise AssertionError(
                f"give every option a default, and declare kind: Literal[{self.name!r}]: {error}"
            ) from error
        written = json.dumps(loss.model_dump(mode="json"))
        assert kind.model_validate_json(written, strict=True) == loss, f"{written} is not read back as it was written"
        for name, field in kind.model_fields.items():
            assert _refuses(kind, {"kind": self.name, name: [["no value"]]}), (
                f"option {name} takes anything: its type is {field.annotation}"
            )
        assert _refuses(kind, {"kind": self.name, "no_such_option": 1}), (
            "an unknown option is taken: keep extra='forbid' of edgekd.recipe.loss.Loss"
        )

    def test_value(self, tried: Any) -> None:
        """The value is one finite float32 number that has a gradient."""
        value = tried[0].value(*tried[1:])
        assert tuple(value.shape) == (), f"return a scalar: the value has shape {tuple(value.shape)}; take the mean"
        assert value.dtype == torch.float32, (
            f"the value is {value.dtype}: compute in float32 (edgekd.distill.arithmetic.full)"
        )
        assert bool(value.isfinite()), f"the value is {value.item()} for ordinary outputs"
        assert value.requires_grad, "the value has no gradient: compute it from the student's tensors without detach()"

    def test_gradient(self, tried: Any) -> None:
        """The student gets a finite gradient, of which some is not zero."""
        trial = tried[0]
        trial.gradients(*tried[1:])
        found = [p.grad for p in trial.student.parameters() if p.grad is not None]
        assert found, "no parameter of the student gets a gradient: read the student's outputs, and do not detach them"
        assert all(bool(grad.isfinite().all()) for grad in found), (
            "the student's gradient is not finite for ordinary outputs"
        )
        assert any(bool(grad.any()) for grad in found), "the student's gradient is 0 everywhere: nothing is learned"

    def test_teacher(self, tried: Any) -> None:
        """The teacher gets no gradient, and its outputs stay as they are."""
        trial, ours, theirs, batch = tried
        before = [tensor.clone() for tensor in theirs]
        trial.gradients(ours, theirs, batch)
        changed = [i for i, (a, b) in enumerate(zip(before, theirs, strict=True)) if not torch.equal(a, b)]
        assert not changed, f"teacher outputs {changed} were changed in place: other losses read them too; copy them"
        taught = [name for name, p in trial.teacher.named_parameters() if p.grad is not None and bool(p.grad.any())]
        assert not taught, f"the teacher gets a gradient, at {', '.join(taught)}: detach() its tensors"
        members = {id(p) for p in trial.teacher.parameters()}
        held = [name for name, p in trial.terms.adapters.named_parameters() if id(p) in members]
        assert not held, f"the adapter would train the teacher's parameters {', '.join(held)}: copy them"

    def test_uses_teacher(self, tried: Any) -> None:
        """The value follows the teacher, exactly where ``needs_teacher`` says so."""
        trial, ours, theirs, batch = tried
        other = tuple(torch.randn(t.shape, generator=torch.Generator().manual_seed(2)) for t in theirs)
        differs = trial.first_value(ours, theirs, batch) != trial.first_value(ours, other, batch)
        assert differs == trial.loss.needs_teacher, (
            f"needs_teacher is {trial.loss.needs_teacher}, but the value {'changes' if differs else 'stays'} with another "
            f"teacher: {'set' if differs else 'read the teacher, or clear'} needs_teacher"
        )

    def test_uses_labels(self, tried: Any) -> None:
        """The value follows the labels, exactly where ``reads_labels`` says so: others train without labels."""
        trial, ours, theirs, batch = tried
        other = Batch(batch.target.roll(1), batch.indices)
        differs = trial.first_value(ours, theirs, batch) != trial.first_value(ours, theirs, other)
        assert differs == trial.loss.reads_labels, (
            f"reads_labels is {trial.loss.reads_labels}, but the value {'changes' if differs else 'stays'} with others: "
            "correct reads_labels, or `edgekd check` lets a recipe without labels through"
        )

    def test_deterministic(self) -> None:
        """The same seed gives the same bits, value and gradient."""
        found = []
        for _ in range(2):
            trial, (images, batch) = self.trial(), self.batch()
            value = trial.gradients(*trial.outputs(images), batch)
            found.append([value, *(p.grad for p in trial.student.parameters() if p.grad is not None)])
        same = all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        assert same, "two calls of one seed differ: draw from torch's global generator only, and keep no state in the class"

    def test_order(self) -> None:
        """The order of the samples in a batch does not matter."""
        values = []
        for order in (torch.arange(BATCH), torch.arange(BATCH).flip(0)):
            trial, (images, batch) = self.trial(), self.batch()
            outputs = trial.outputs(images[order])
            values.append(trial.first_value(*outputs, Batch(batch.target[order], batch.indices[order])))
        assert values[1] == pytest.approx(values[0], rel=1e-4, abs=1e-7), (
            f"{values[0]:g} becomes {values[1]:g} when the batch is reversed: sum over samples, or declare the gap `order`"
        )

    def test_half_precision(self, tried: Any, half: str) -> None:
        """Mixed precision hands over half-precision outputs: the value is that of the same numbers in float32."""
        trial, ours, theirs, batch = tried
        rounded = tuple(tuple(t.detach().to(HALF[half]) for t in side) for side in (ours, theirs))
        before = trial.first_value(*(tuple(t.float() for t in side) for side in rounded), batch)
        with torch.autocast("cpu", dtype=HALF[half]):
            after = trial.first_value(*rounded, batch)
        assert after == pytest.approx(before, rel=0.02), (
            f"{before:g} becomes {after:g} in {half}: call edgekd.distill.arithmetic.full on what is subtracted, "
            "multiplied or put through exp and log"
        )

    def test_dead_student(self) -> None:
        """A student whose outputs are all equal gets a finite value and a finite gradient: training may start there."""
        trial, (images, batch) = self.trial(), self.batch()
        ours, theirs = trial.outputs(images)
        zeros = tuple((0 * t).detach().requires_grad_() for t in ours)
        value = trial.gradients(zeros, theirs, batch)
        finite = bool(value.isfinite()) and all(bool(t.grad.isfinite().all()) for t in zeros if t.grad is not None)
        assert finite, "zeros give a value or gradient that is not finite: divide by edgekd.distill.arithmetic.unit's norm"

    def test_falls(self) -> None:
        """Training on one batch lowers the value: the gradient is the value's, and the adapter learns with the student."""
        trial, (images, batch) = self.trial(), self.batch()
        trained = nn.ModuleList([trial.student, trial.terms])
        optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], 3e-3)
        found: list[float] = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            found.append(float(trial.gradients(*trial.outputs(images), batch).detach()))
            optimizer.step()
        assert found[-1] < found[0], (
            f"{STEPS} steps raise the value from {found[0]:g} to {found[-1]:g}: the gradient is not the value's"
        )

    def test_best(self) -> None:
        """A student that is a copy of the teacher has a lower value than one that is not."""
        if not self.entry().needs_teacher:
            pytest.skip("it has no teacher to be a copy of")
        _, teacher = self.networks()
        other = copy.deepcopy(teacher)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
        values, (images, batch) = [], self.batch()
        for student in (copy.deepcopy(teacher), other):
            trial = self.trial(student)
            if any(True for _ in trial.terms.adapters.parameters()) or trial.loss.reuses_teacher:
                pytest.skip("what it trains beside the student decides which student is best")
            trial.student.eval()
            values.append(trial.first_value(*trial.outputs(images), batch))
        assert values[0] < values[1], (
            f"a copy of the teacher has {values[0]:g}, another network {values[1]:g}: check the sign; training lowers it"
        )

    def test_features(self, tried: Any) -> None:
        """A loss that compares layers is a ``FeatureLoss``, and no other is."""
        trial = tried[0]
        reads, compares = trial.loss.reads, isinstance(trial.loss, FeatureLoss)
        assert compares == (reads != "logits"), (
            f"reads is {reads!r}: {'derive from Loss' if compares else 'derive from FeatureLoss'}, or correct reads"
        )


def _refuses(kind: type[Loss], options: Mapping[str, Any]) -> bool:
    try:
        kind.model_validate_json(json.dumps(options), strict=True)
    except ValidationError:
        return True
    return False
