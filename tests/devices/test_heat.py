"""Heat on a board: what its firmware tells around each block, waiting until it is cool, and throttling in the middle."""

from __future__ import annotations

from pathlib import Path

from tests.devices import lab
from tests.devices.conftest import device
from tests.words import doubts

from edgekd.profiling.session import Session, measure
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile

QUICK = Profile(devices=("pi4",), blocks=3, block_runs=1, block_ms=1, warmup_runs=1, warmup_ms=0)


class Sensors:
    """The board's sensors, set when a step of the session begins.

    Args:
        board: The board.
        steps: By the beginning of a step's name, values by sensor; each is set once.
    """

    def __init__(self, board: lab.Pi, **steps: dict[str, str]) -> None:
        self.files = {
            "celsius": board.root / "sys/class/thermal/thermal_zone0/temp",
            "throttled": board.root / "run/edgekd/throttled",
            "clock": board.root / "run/edgekd/clock",
        }
        self.steps = {name.replace("_", " "): values for name, values in steps.items()}
        self.told: list[str] = []

    def set(self, celsius: str = "48200", throttled: str = "0x0", clock: str = "1800457088") -> None:
        """Set all; what is left out is as on a cool board."""
        for name, value in (("celsius", celsius), ("throttled", throttled), ("clock", clock)):
            self.files[name].write_text(value + "\n")

    def progress(self, what: str, done: int, total: int) -> None:
        """Take part in the session."""
        self.told.append(what)
        for step in [step for step in self.steps if what.startswith(step)]:
            self.set(**self.steps.pop(step))


def run(sensors: Sensors, nets: Path, folder: Path, **keys: object) -> Session:
    """Measure one file; the board is cool again afterwards."""
    variant = Variant("onnx_float", "onnx", nets / "float.onnx")
    try:
        return measure([variant], QUICK, device("pi4", **keys), folder, sensors.progress)
    finally:
        sensors.set()


def test_a_hot_board_is_waited_for_and_throttling_in_block_3_is_measured_again(
    pi4_board: lab.Pi, nets: Path, tmp_path: Path
) -> None:
    sensors = Sensors(pi4_board, cooling_down={"celsius": "60000"}, block_3={"throttled": "0x40004", "clock": "600117184"})
    sensors.set(celsius="81000")
    sensors.steps["pausing"] = {}
    sensors.steps["cooling down: 48 °C, still throttled"] = {"throttled": "0x40000"}
    (found,) = run(sensors, nets, tmp_path, max_celsius=70.0, wait_s=60, retries=1).profiles
    assert any(step.startswith("cooling down: 81 °C, waiting for 70 °C, ") for step in sensors.told)
    (first,) = found.attempts
    assert "throttled in block 3" in doubts(first.reasons)
    assert not [reason for reason in doubts(found.trust.reasons) if "throttled" in reason or "°C" in reason]
    assert [state.throttled for state in found.states] == [False] * 3
    assert found.governor == "ondemand"
    assert found.reference_ms is None, "the emulator's pace is nobody's"


def test_a_board_that_stays_hot_and_throttled_is_measured_and_says_so(pi4_board: lab.Pi, nets: Path, tmp_path: Path) -> None:
    sensors = Sensors(pi4_board, block_3={"celsius": "84000", "throttled": "0x50005", "clock": "600117184"})
    sensors.set(celsius="81000")
    (found,) = run(sensors, nets, tmp_path, max_celsius=70.0, wait_s=0.5).profiles
    assert "throttled and under-voltage in block 3" in doubts(found.trust.reasons)
    assert any(
        "the session began at 81 °C, above max_celsius 70, after " in reason for reason in doubts(found.trust.reasons)
    )
    assert [(state.celsius, state.mhz and round(state.mhz)) for state in found.states] == [(81, 1800), (81, 1800), (84, 600)]
    assert found.trust.verdict == "untrusted"
