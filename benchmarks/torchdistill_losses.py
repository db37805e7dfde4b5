"""torchdistill's losses, from the same features, for the same loop as edgekd's.

Each class hands the features to torchdistill's own modules (losses, regressors, embeddings) under the names that its hooks
would give them. Options are those of torchdistill's examples; weights, where torchdistill's losses have none of their own,
those that RepDistiller's commands give (-b). Not here: what torchdistill has no module for (FitNets is torch's MSELoss),
what needs a stage of training before (factor transfer, DAB), other inputs (SSKD) or a decoder (KTA).

    pip install -e '.[test]'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.errors import ModelError
from edgekd.models.torchvision import import_torchvision
from edgekd.recipe.loss import FeatureLoss, Loss, Reads
from edgekd.taps.pairing import Pair

Io = dict[str, dict[str, Any]]
ENDS = ("s", "output", "t", "output")  # path and end of the student's module, of the teacher's


def modules() -> Any:
    """Import torchdistill's losses; torchvision must be importable before."""
    import_torchvision()
    from torchdistill.losses import mid_level

    return mid_level


def wrappers() -> Any:
    """Import torchdistill's networks for losses that have some."""
    import_torchvision()
    from torchdistill.models import wrapper

    return wrapper


def io(*values: Any) -> Io:
    """What hooks record: the outputs of the modules ``0``, ``1``, …; the first is also that of ``s`` and ``t``."""
    named = {str(index): {"output": value} for index, value in enumerate(values)}
    return {**named, "s": named["0"], "t": named["0"]}


def value(name: str, student: Sequence[Any], teacher: Sequence[Any], *args: Any, **options: Any) -> Tensor:
    """The value of torchdistill's loss ``name``, made with ``args`` and ``options``, of what each network gives."""
    found: Tensor = getattr(modules(), name)(*args, **options)(io(*student), io(*teacher))
    return found


def pairs_config(count: int) -> dict[str, Any]:
    return {f"pair{i}": {"student": {"io": "output", "path": str(i)}, "teacher": {"io": "output", "path": str(i)}}
            for i in range(count)}  # fmt: skip


class TorchdistillKD(Loss):
    """KLDivLoss of softened probabilities, times T²."""

    kind: Literal["kd"] = "kd"

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        return 16 * value("KDLoss", [student.primary], [teacher.primary], *ENDS, temperature=4.0, alpha=None, beta=1.0)


class TorchdistillLogitStandardization(Loss):
    """The paper's T = 2 and weight 9."""

    kind: Literal["logit_standardization"] = "logit_standardization"
    weight: float = 9.0

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        ends = [student.primary], [teacher.primary]
        return 4 * value("LogitStdKDLoss", *ends, *ENDS, temperature=2.0, alpha=None, beta=1.0)


class TorchdistillDist(Loss):
    """The defaults: β = γ = τ = 1."""

    kind: Literal["dist"] = "dist"

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        return value("DISTLoss", [student.primary], [teacher.primary], *ENDS)


class TorchdistillAT(FeatureLoss):
    """``mode: code``."""

    kind: Literal["attention_transfer"] = "attention_transfer"
    weight: float = 1000.0

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        return value("ATLoss", student.features, teacher.features, pairs_config(len(student.features)))


class TorchdistillFSP(FeatureLoss):
    """Between neighbouring stages."""

    kind: Literal["fsp"] = "fsp"
    weight: float = 50.0

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> None:
        if any(pair.student.channels != pair.teacher.channels for pair in pairs):
            raise ModelError("torchdistill's FSPLoss needs stages of the same widths")

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        def ends(index: int) -> dict[str, Any]:
            return {f"{role}_{end}": {"io": "output", "path": str(index + step)}
                    for role in ("student", "teacher") for step, end in enumerate(("first", "second"))}  # fmt: skip

        pairs = {f"pair{i}": ends(i) for i in range(len(student.features) - 1)}
        return value("FSPLoss", student.features, teacher.features, pairs)


class TorchdistillVID(FeatureLoss):
    """As in torchdistill's examples, whose middle width is the teacher's."""

    kind: Literal["vid"] = "vid"

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.ModuleList:
        make = wrappers().Regressor4VID
        widths = [(pair.student.channels, pair.teacher.channels) for pair in pairs]
        return nn.ModuleList(make(ours, theirs, theirs, eps=1e-5, init_pred_var=5.0) for ours, theirs in widths)

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        predicted = [regressor(s) for regressor, s in zip(adapter, student.features, strict=True)]
        return value("VIDLoss", predicted, teacher.features, pairs_config(len(predicted)))


class TorchdistillReview(FeatureLoss):
    """Knowledge review; the weight rises over the first twelfth of training (20 of 240 epochs), as published."""

    kind: Literal["reviewkd"] = "reviewkd"

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.ModuleList:
        make = wrappers().AttentionBasedFusion
        middle = min(512, pairs[-1].student.channels)
        return nn.ModuleList(
            make(pair.student.channels, middle, pair.teacher.channels, uses_attention=pair is not pairs[-1])
            for pair in pairs
        )

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        total, residual = torch.zeros(()), None
        for fusion, s, t in reversed(list(zip(adapter, student.features, teacher.features, strict=True))):
            out, residual = fusion(s, residual, s.shape[2])
            total = total + value("HierarchicalContextLoss", [(out, residual)], [t], *ENDS)
        return total


class TorchdistillICKD(FeatureLoss):
    """Inter-channel correlation of the last stage."""

    reads: ClassVar[Reads] = "last_stage"

    kind: Literal["ickd"] = "ickd"
    weight: float = 2.5

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        embed: nn.Module = wrappers().ChannelSimilarityEmbed(pairs[0].student.channels, pairs[0].teacher.channels)
        return embed

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.Module) -> Tensor:
        s, t = adapter(student.features[0]).contiguous(), teacher.features[0].contiguous()
        return value("ChSimLoss", [s], [t], pairs_config(1))


class TorchdistillSP(FeatureLoss):
    """Similarity preserving, of the last stage."""

    reads: ClassVar[Reads] = "last_stage"

    kind: Literal["similarity_preserving"] = "similarity_preserving"
    weight: float = 3000.0

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        return value("SPKDLoss", student.features, teacher.features, "s", "t", "batchmean")


class TorchdistillPKT(FeatureLoss):
    """Probabilistic knowledge transfer."""

    reads: ClassVar[Reads] = "embedding"

    kind: Literal["pkt"] = "pkt"
    weight: float = 30000.0

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        return value("PKTLoss", student.features, teacher.features, *ENDS)


class TorchdistillRKD(FeatureLoss):
    """Distances with 25, angles with 50, as in RepDistiller."""

    reads: ClassVar[Reads] = "embedding"

    kind: Literal["rkd"] = "rkd"

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        factors = {"dist_factor": 25.0, "angle_factor": 50.0}
        return value("RKDLoss", student.features, teacher.features, "s", "t", **factors, reduction="mean")


class TorchdistillCC(FeatureLoss):
    """Correlation congruence of 128-dimensional embeddings, gaussian kernel."""

    reads: ClassVar[Reads] = "embedding"

    kind: Literal["correlation_congruence"] = "correlation_congruence"
    weight: float = 0.02

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.ModuleList:
        return nn.ModuleList(nn.Linear(side.channels, 128) for side in (pairs[0].student, pairs[0].teacher))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        kernel = {"type": "gaussian", "gamma": 0.4, "max_p": 2}
        embedded = [embed(of.features[0]) for embed, of in zip(adapter, (student, teacher), strict=True)]
        return value("CCKDLoss", embedded[:1], embedded[1:], "s", "t", kernel, "batchmean")


class TorchdistillCRD(FeatureLoss):
    """Contrastive representation distillation; as many negatives as there are other images, of other classes."""

    reads: ClassVar[Reads] = "embedding"

    kind: Literal["crd"] = "crd"
    weight: float = 0.8

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.ModuleDict:
        normalizers = [
            wrappers().Normalizer4CRD(nn.Linear(side.channels, 128)) for side in (pairs[0].student, pairs[0].teacher)
        ]
        loss = modules().CRDLoss(
            student_norm_module_path="s", student_empty_module_path="empty", teacher_norm_module_path="t",
            input_size=128, output_size=facts.samples, num_negative_samples=facts.samples - 1, num_samples=facts.samples,
        )  # fmt: skip
        parts = nn.ModuleDict({"student": normalizers[0], "teacher": normalizers[1], "loss": loss})
        parts.register_buffer("labels", facts.targets)
        return parts

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleDict) -> Tensor:
        s, t = adapter["student"](student.features[0]), adapter["teacher"](teacher.features[0])
        loss: Any = adapter["loss"]
        count = loss.num_samples
        allowed = (adapter.get_buffer("labels") != batch.target[:, None]).float()
        others = torch.multinomial(allowed, count - 1, replacement=True)
        chosen = {"pos_idx": batch.indices, "contrast_idx": torch.cat([batch.indices[:, None], others], 1)}
        found: Tensor = loss({**io(s), "empty": {"input": chosen}}, io(t))
        loss.params.detach_()  # torchdistill keeps its constants with the graph they came from
        return found.squeeze()


def all_losses(epochs: int) -> list[Loss]:
    """Every loss of torchdistill here, with its weight."""
    return [
        TorchdistillKD(), TorchdistillLogitStandardization(), TorchdistillDist(), TorchdistillAT(), TorchdistillFSP(),
        TorchdistillVID(), TorchdistillReview(warmup_epochs=epochs / 12), TorchdistillICKD(), TorchdistillSP(),
        TorchdistillPKT(), TorchdistillRKD(), TorchdistillCC(), TorchdistillCRD(),
    ]  # fmt: skip
