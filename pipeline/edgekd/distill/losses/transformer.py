"""Losses on the self-attention of transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from edgekd.distill.arithmetic import products
from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.errors import ModelError
from edgekd.recipe.loss import Depth, FeatureLoss, Reads
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.taps.pairing import Pair


@losses.register("attention_maps")
class AttentionMaps(FeatureLoss):
    """Squared error of the attention matrices (TinyBERT, Jiao et al. 2020, its attention loss L_attn).

    ``1/h Σᵢ MSE(Aᵢ of the student, Aᵢ of the teacher)``, summed over the layers; A = Q Kᵀ / √d, without the softmax, as in
    the paper. Layers are paired evenly by depth. Where the numbers of heads differ, the means over the heads are
    compared, for no head of one has its counterpart in the other. The tokens have to be the same: a row of A is about these
    tokens, and the mean of several rows, or of scores in front of a softmax, is no attention of any token.
    """

    reads: ClassVar[Reads] = "attention"

    kind: Literal["attention_maps"] = "attention_maps"
    weight: NonNegativeFloat = 1.0

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> None:
        """Refuse pairs whose tokens differ."""
        _same_tokens(pairs, self.kind)

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the error of the attention matrices, summed over the layers."""
        import torch
        from torch.nn import functional as F

        def error(s: Tensor, t: Tensor) -> Tensor:
            ours, theirs = _relation(s[:, 0], s[:, 1]), _relation(t[:, 0], t[:, 1])
            if ours.shape[1] != theirs.shape[1]:
                ours, theirs = ours.mean(1), theirs.mean(1)
            return F.mse_loss(ours, theirs)

        return torch.stack([error(s, t) for s, t in zip(student.features, teacher.features, strict=True)]).sum()


@losses.register("minilm")
class MiniLM(FeatureLoss):
    """Self-attention distributions and value relations of the last layer (MiniLM, Wang et al. 2020).

    ``KL(softmax(Q Kᵀ / √d) of the teacher ‖ of the student)``, and the same of ``softmax(V Vᵀ / √d)``; both as means over
    heads and tokens, added. With other numbers of heads, or with ``relation_heads``, it is MiniLMv2 (Wang et al. 2021):
    queries, keys and values are cut into as many relation heads in both networks, and the relations Q-Q, K-K and V-V are
    compared. No width has to agree, and nothing is trained beside the student.
    """

    reads: ClassVar[Reads] = "attention"

    kind: Literal["minilm"] = "minilm"
    weight: NonNegativeFloat = 1.0
    layers: Literal["auto"] | Depth | dict[str, str] = "late"
    """late: the last attention of both, as in the paper; auto: all of them, by depth; early, middle; or module paths,
    student: teacher, such as {blocks.11.attn: encoder.layers.encoder_layer_10.self_attention}."""
    relation_heads: Annotated[PositiveInt | Literal["auto"], Field(examples=["auto"])] = "auto"
    """Relation heads of MiniLMv2. auto: MiniLM where both networks have as many heads; else as many as the teacher has, or
    the next smaller number that divides both widths."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> None:
        """Refuse pairs whose tokens differ, or whose widths the relation heads do not divide."""
        _same_tokens(pairs, self.kind)
        for pair in pairs:
            widths = [layer.shape[1] * layer.shape[3] for layer in (pair.student, pair.teacher)]
            if self.relation_heads != "auto" and any(width % self.relation_heads for width in widths):
                raise ModelError(
                    f"minilm: {self.relation_heads} relation heads do not divide the widths {widths[0]} of the student and "
                    f"{widths[1]} of the teacher",
                    f"relation_heads has to divide {math.gcd(*widths)}",
                )

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the sum of the divergences, the mean over the layers."""
        import torch

        def error(s: Tensor, t: Tensor) -> Tensor:
            heads = self._heads(s, t)
            if heads is None:
                return _divergence(s, t, 0, 1) + _divergence(s, t, 2, 2)
            s, t = _cut(s, heads), _cut(t, heads)
            return torch.stack([_divergence(s, t, which, which) for which in range(3)]).sum()

        return torch.stack([error(s, t) for s, t in zip(student.features, teacher.features, strict=True)]).mean()

    def _heads(self, student: Tensor, teacher: Tensor) -> int | None:
        """Relation heads; None where each head has its counterpart."""
        if self.relation_heads != "auto":
            return self.relation_heads
        if student.shape[2] == teacher.shape[2]:
            return None
        common = math.gcd(student.shape[2] * student.shape[4], teacher.shape[2] * teacher.shape[4])
        return max(count for count in range(1, teacher.shape[2] + 1) if common % count == 0)


def _relation(a: Tensor, b: Tensor) -> Tensor:
    """Scaled products of N×heads×L×C with each other, N×heads×L×L."""
    return products(a, b) / math.sqrt(a.shape[-1])


def _cut(qkv: Tensor, heads: int) -> Tensor:
    """The heads of N×3×heads×L×C side by side, and cut anew into ``heads``."""
    tokens = qkv.transpose(2, 3).flatten(3)
    return tokens.reshape(*tokens.shape[:3], heads, -1).transpose(2, 3)


def _divergence(student: Tensor, teacher: Tensor, a: int, b: int) -> Tensor:
    """KL divergence of the softmax of each row of a relation (of 0 queries, 1 keys, 2 values), mean over all rows."""
    from torch.nn import functional as F

    log_p, log_q = (F.log_softmax(_relation(x[:, a], x[:, b]), dim=-1).flatten(0, 2) for x in (student, teacher))
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def _same_tokens(pairs: Sequence[Pair], kind: str) -> None:
    for pair in pairs:
        ours, theirs = pair.student.shape[2], pair.teacher.shape[2]
        if ours != theirs:
            raise ModelError(
                f"{kind} compares attention between the same tokens, but {pair.student.path} of the student has {ours} and "
                f"{pair.teacher.path} of the teacher {theirs}",
                "choose the same patch size and the same class and register tokens; or fitnet or attention_transfer, which "
                "pool maps to one size",
            )
