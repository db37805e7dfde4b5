"""edgekd's own tasks in the suite for everyone's."""

from __future__ import annotations

from edgekd.registry import tasks
from edgekd.task.base import Samples
from edgekd.testing import TaskSuite


class TestImageClassification(TaskSuite):
    name = "image-classification"
    samples = Samples({"image": ((3, 32, 32), "float32")}, classes=tuple("abcdefgh"))
    others = Samples({"input_ids": ((128,), "int64")}, classes=("a", "b"))


def test_every_task_is_tried() -> None:
    tried = {suite.name for suite in globals().values() if isinstance(suite, type) and issubclass(suite, TaskSuite)}
    assert tried - {""} == {*tasks.names()}
