"""Consequences of the devices' integer arithmetic for weights and activations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Literal

from edgekd.devices import schema
from edgekd.devices.schema import Device
from edgekd.recipe import Recipe
from edgekd.recipe.base import need


def of(recipe: Recipe) -> list[Device]:
    """The devices that a recipe profiles on, or this machine.

    Raises:
        UsageError: There is no such device, or its file is wrong.
    """
    return [schema.load(name) for name in (recipe.profile.devices if recipe.profile else ("host",))]


def named(recipe: Recipe, name: str) -> Device:
    """The device of a recipe that is called ``name`` in stages and reports.

    Raises:
        UsageError: Its file is not there or wrong.
    """
    profile = need(recipe.profile, "profile")
    return schema.load(profile.devices[profile.names.index(name)])


def board(device: Device) -> tuple[object, ...]:
    """Return the identity of a board or phone; several files may describe one board."""
    return (device.transport, device.host, device.port, device.serial, json.dumps(device.options, sort_keys=True))


def together(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """Choose the devices that can be measured on at the same time as the first.

    This machine is measured alone: the others' sessions would be its load. Two files of one board are measured in turn.

    Args:
        recipe: The recipe that names them.
        names: Devices of it.

    Returns:
        The first, and those that neither disturb it nor are disturbed.
    """
    chosen: dict[tuple[object, ...], str] = {}
    for name in names:
        device = named(recipe, name)
        if device.transport == "host" and chosen:
            continue
        chosen.setdefault(board(device), name)
        if device.transport == "host":
            break
    return list(chosen.values())


def weight_bits_for(devices: Iterable[Device]) -> Literal[7, 8]:
    """Choose how many bits of an int8 weight may be used so that no target's kernels saturate.

    x86 kernels without VNNI multiply unsigned by signed bytes with ``pmaddubsw``, which adds two products in 16 bits:
    255·127·2 does not fit and is clipped without a word, while 255·63·2 fits. VNNI and Arm add in 32 bits. Where a
    target is not known, or none is named, 7 is the safe choice: it is right everywhere and costs a little accuracy,
    whereas 8 is silently wrong where it is wrong.

    Args:
        devices: All targets of the recipe.
    """
    sums = [device.sums() for device in devices]
    return 8 if sums and all(bits == 32 for bits in sums) else 7


def openvino_zero_points_for(devices: Iterable[Device]) -> Literal["biases", "activations"]:
    """Choose where OpenVINO files have the zero points of convolutions.

    oneDNN, which computes on x86, is faster with zero points that are part of the biases. The graph that says so is one that
    OpenVINO 2026.4 asserts on on Arm, whose library has zero points of its own.

    Args:
        devices: All targets of the recipe.
    """
    return "biases" if all(device.cpu().arch == "x86_64" for device in devices) else "activations"


def onnx_activations_for(devices: Iterable[Device]) -> Literal["uint8", "int8"]:
    """Choose the type of activations in ONNX files.

    ONNX Runtime's x86 kernels multiply unsigned by signed bytes, and so do VNNI instructions; Arm's dot product takes two
    signed ones. The real values are the same. int8 only where all targets are Arm: on x86 it costs a conversion.

    Args:
        devices: All targets of the recipe.
    """
    archs = {device.cpu().arch for device in devices}
    return "int8" if archs and archs <= {"aarch64", "armv7l"} else "uint8"
