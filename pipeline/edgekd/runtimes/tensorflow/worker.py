"""Runs a Keras file or a SavedModel for :mod:`edgekd.runtimes.tensorflow`; needs numpy and tensorflow, nothing of edgekd.

    python worker.py keras|savedmodel PATH THREADS [SIGNATURE]

Says what it has found as one message of JSON on standard output, then answers each message (an array in numpy's format) with
another; a message is its length in 8 bytes and its bytes. Ends where its standard input ends.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np

UNSAFE = {
    "WriteFile",
    "ReadFile",
    "MatchingFiles",
    "Save",
    "SaveSlices",
    "SaveV2",
    "PyFunc",
    "PyFuncStateless",
    "EagerPyFunc",
}
"""Operators that a network has no need of: they write and read files, and call Python."""


class RefusedError(Exception):
    """A refusal with its reason and a hint."""


Network = tuple[list[int | None], str, Callable[[Any], Any]]


def keras(tf: Any, path: str, _signature: str) -> Network:
    """Return the shape and the type of the input, and a call."""
    model = tf.keras.models.load_model(path, compile=False, safe_mode=True)
    inputs = model.inputs
    if not inputs or len(inputs) != 1:
        raise RefusedError(f"has {len(inputs or ())} inputs", "give a network of one input, the images")
    shape, dtype = [None if side is None else int(side) for side in inputs[0].shape], str(inputs[0].dtype)
    return shape, dtype, tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec(shape, dtype)])


def savedmodel(tf: Any, path: str, signature: str) -> Network:
    """Return the shape and the type of the input, and a call."""
    loaded = tf.saved_model.load(path)
    names = sorted(loaded.signatures)
    chosen = signature or ("serving_default" if "serving_default" in names else names[0] if len(names) == 1 else "")
    if chosen not in names:
        listed = ", ".join(names) or "none"
        raise RefusedError(
            f"has no signature {chosen!r}" if chosen else f"has {len(names)} signatures and no serving_default",
            f"its signatures: {listed}; choose one with teacher.signature" if names else "export it again with a signature",
        )
    function = loaded.signatures[chosen]
    found = sorted(set(_operators(function.graph.as_graph_def())) & UNSAFE)
    if found:
        raise RefusedError(f"has the operator {found[0]}, which reads or writes files or calls Python", "export it without")
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1:
        raise RefusedError(
            f"has {len(inputs)} inputs in {chosen}: {', '.join(inputs)}", "give a network of one input, the images"
        )
    ((name, spec),) = inputs.items()
    if spec.shape.rank is None:
        raise RefusedError("does not say how many dimensions its input has", "export it with an input of known rank")
    # What is loaded lives as long as the call: its variables are the graph's.
    return list(spec.shape), spec.dtype.name, lambda x, _kept=loaded: function(**{name: x})


def _operators(graph: Any) -> Iterator[str]:
    for body in (graph.node, *(function.node_def for function in graph.library.function)):
        yield from (node.op for node in body)


def only(outputs: Any) -> Any:
    """The one output of a network."""
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, list | tuple):
        if len(outputs) != 1:
            raise RefusedError(f"has {len(outputs)} outputs", "give a network of one output, the classes")
        return outputs[0]
    return outputs


def _receive(stream: BinaryIO) -> bytes | None:
    head = stream.read(8)
    return stream.read(struct.unpack("<Q", head)[0]) if len(head) == 8 else None


def _send(stream: BinaryIO, content: bytes) -> None:
    stream.write(struct.pack("<Q", len(content)) + content)
    stream.flush()


def main(kind: str, path: str, threads: str, signature: str = "") -> None:
    """Load the file, say what it is, and answer until there is nothing more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what TensorFlow prints is no answer
    try:
        tf = import_module("tensorflow")
        tf.config.threading.set_intra_op_parallelism_threads(int(threads))
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.experimental.enable_op_determinism()
        tf.keras.utils.set_random_seed(0)
        shape, dtype, call = {"keras": keras, "savedmodel": savedmodel}[kind](tf, path, signature)
        _send(answers, json.dumps({"shape": shape, "dtype": dtype}).encode())
    except RefusedError as refused:
        _send(answers, json.dumps({"error": refused.args[0], "hint": refused.args[1]}).encode())
        return
    except Exception as error:  # TensorFlow and Keras raise many kinds
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        _send(answers, json.dumps({"error": f"cannot be loaded: {first[:300]}", "hint": ""}).encode())
        return
    while (content := _receive(sys.stdin.buffer)) is not None:
        x = np.load(io.BytesIO(content), allow_pickle=False)
        answer = io.BytesIO()
        try:
            np.save(answer, np.asarray(only(call(tf.constant(x, dtype)))).astype(np.float32), allow_pickle=False)
        except Exception as error:  # as above
            first = next((line for line in str(error.args[0] if error.args else error).splitlines() if line.strip()), "")
            answer = io.BytesIO(json.dumps({"error": f"{type(error).__name__}: {first[:300]}"}).encode())
        _send(answers, answer.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])
