"""Heat, throttling, attempts, pinning and the limit of time, with the sensors of a board in a folder."""

import io
import zipfile

import pytest
from tests.words import doubts, notes

from edgekd.devices import schema
from edgekd.profiling import heat, rounds, session
from edgekd.profiling.on_device.commands import Commands
from edgekd.profiling.participants import REFERENCE, Limit
from edgekd.profiling.session import measure
from edgekd.profiling.transports.host import Host
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile
from edgekd.report.findings import sentence

SHORT = Profile(warmup_runs=2, warmup_ms=1, blocks=3, block_ms=1, block_runs=4)
HOST = schema.load("host").model_copy(update={"retries": 0, "wait_s": 0.2})
EMULATED = HOST.model_copy(update={"emulated": True})  # only heat makes it measure again


class Board(Host):
    """This machine with the sensors of a board, which are files under ``root``."""

    def __init__(self, root):
        self.root, self.told, self.steps, self.said = root, [], [], []
        self.at = {}
        (root / "sys/class/thermal/thermal_zone0").mkdir(parents=True)
        (root / "sys/devices/platform/soc/soc:firmware").mkdir(parents=True)
        (root / "proc").symlink_to("/proc")
        self.set(celsius=48.2, bits="0")

    def set(self, celsius=None, bits=None):
        if celsius is not None:
            (self.root / "sys/class/thermal/thermal_zone0/temp").write_text(f"{1000 * celsius:.0f}\n")
        if bits is not None:
            (self.root / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text(f"{bits}\n")

    def write(self, name, data):
        """The program as it is, but for where it finds its sensors."""
        program = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(program, "w") as new:
            for part in old.namelist():
                text = old.read(part)
                new.writestr(
                    part, text.replace(b'root: Path = Path("/")', f"root: Path = Path({str(self.root)!r})".encode())
                )
        return super().write(name, program.getvalue())

    def progress(self, what, done, total):
        """Set sensors when a step begins, once: ``at[step] = sensors``."""
        self.told.append(what)
        self.steps.append((done, total))
        for step in [step for step in self.at if what.startswith(step)]:
            self.set(**self.at.pop(step))


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.setattr(heat, "STEP_S", 0.05)
    return Board(tmp_path / "board")


def run(nets, tmp_path, board, device, protocol=SHORT):
    variants = [Variant(name, "onnx", nets / "float.onnx") for name in ("one", "two")]
    return measure(variants, protocol, device, tmp_path, board.progress, board, say=board.said.append)


def test_the_device_is_recorded_around_each_block_with_the_reference(nets, tmp_path, board):
    board.at["block 2/3"] = {"celsius": 55}
    one, two = run(nets, tmp_path, board, HOST).profiles
    assert [state.celsius for state in one.states] == [48.2, 55, 55]
    assert all(state.others is not None and not state.throttled for state in two.states)
    assert one.reference_ms > 0
    assert one.reference.startswith("192x192 float32 product and 4 MiB copy, numpy ")
    assert one.inputs == "random"
    assert f"block 1/3 {REFERENCE}" in board.told
    assert (tmp_path / "host.jsonl").read_text().count(REFERENCE) == 3


def test_throttling_names_its_block_and_is_measured_again(nets, tmp_path, board):
    board.at["block 3/3 one"] = {"bits": "40004"}
    board.at["cooling down"] = {"bits": "40000"}
    device = EMULATED.model_copy(update={"retries": 1, "wait_s": 60})
    one, two = run(nets, tmp_path, board, device).profiles
    assert "throttled in block 3" in doubts(one.attempts[0].reasons)
    assert one.attempts[0].p50 > 0
    assert not [reason for reason in doubts((*one.trust.reasons, *two.trust.reasons)) if "throttled" in reason]
    assert len(one.blocks) == len(one.states) == 3
    assert "cooling down: 48 °C, still throttled, 60 s left" in board.told
    (said,) = board.said
    assert sentence(said).startswith("host: attempt 2 of 2: attempt 1 was not trusted (")
    assert "throttled in block 3" in sentence(said)
    assert board.steps[board.told.index("read two")] == (19, 20), "both attempts are steps"
    assert max(done for done, total in board.steps if total == 12) == 10, "the share of the first goes on"


def test_a_last_attempt_that_is_throttled_counts(nets, tmp_path, board):
    board.set(bits="50005")
    found = run(nets, tmp_path, board, EMULATED.model_copy(update={"retries": 1})).profiles[0]
    assert "throttled and under-voltage in blocks 1 to 3" in doubts(found.trust.reasons)
    assert len(found.attempts) == 1
    assert found.attempts[0].cooled_s >= 0.2


def test_a_hot_device_is_waited_for_and_says_what_it_waits_for(nets, tmp_path, board):
    board.set(celsius=81)
    board.at["cooling down"] = {"celsius": 60}
    found = run(nets, tmp_path, board, HOST.model_copy(update={"max_celsius": 70.0, "wait_s": 60}))
    assert "cooling down: 81 °C, waiting for 70 °C, 60 s left" in board.told
    assert not [reason for reason in doubts(found.profiles[0].trust.reasons) if "°C" in reason]


def test_a_device_that_stays_hot_is_measured_and_not_trusted(nets, tmp_path, board):
    board.set(celsius=81)
    found = run(nets, tmp_path, board, EMULATED.model_copy(update={"max_celsius": 70.0}))
    assert "the session began at 81 °C, above max_celsius 70, after 0 s of waiting" in doubts(
        found.profiles[0].trust.reasons
    )


def test_cores_are_pinned_and_read_back(nets, tmp_path, monkeypatch):
    variants = [Variant(runtime, runtime, nets / f"float.{runtime}") for runtime in ("onnx", "tflite")]
    for record in measure(variants, SHORT, HOST.model_copy(update={"cores": (0,), "threads": 2}), tmp_path).profiles:
        assert record.cores == (0,)
        assert not [reason for reason in doubts(record.trust.reasons) if reason.startswith("cores")]
    asked, start = HOST.model_copy(update={"cores": (0, 999)}), session._start
    failure, _ = measure(variants, SHORT, asked, tmp_path).failures
    assert failure.reason.startswith("cores [999]: this machine has no such cores; it has [0")
    monkeypatch.setattr(session, "_start", lambda run, way, _, threads: start(run, way, HOST, threads))  # as if not allowed
    reasons = doubts(measure(variants[:1], SHORT, asked, tmp_path).profiles[0].trust.reasons)
    assert [reason for reason in reasons if reason.startswith("cores: 0, 999 asked for, it ran on 0")]


def test_time_that_is_over_keeps_what_was_measured(nets, tmp_path, board, monkeypatch):
    monkeypatch.setattr(Limit, "left", lambda limit: 1000.0 if "block 4/9 two" not in board.told else rounds.RESERVE_S)
    found = run(nets, tmp_path, board, HOST, SHORT.model_copy(update={"blocks": 9}))
    assert [len(record.blocks) for record in found.profiles] == [4, 4]
    assert "only 4 of 9 blocks were measured on host: limit_s is over (3600 s)" in notes(found.notes)


def test_time_that_is_over_early_is_a_failure(nets, tmp_path, board):
    found = run(nets, tmp_path, board, HOST.model_copy(update={"limit_s": 0.001}))
    assert not found.profiles
    assert [failure.model for failure in found.failures] == ["one", "two"]
    assert all("limit_s is over (0.001 s for everything on the device)" in failure.reason for failure in found.failures)


def test_a_pause_can_be_interrupted(monkeypatch):
    class Presses:
        limit, told = Limit(3600), 0

        def tell(self, what):
            self.told += 1
            if self.told == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(heat, "STEP_S", 0.01)
    with pytest.raises(KeyboardInterrupt):
        heat._sleep(Presses(), "pausing", 3000.0)


class Slowing(Commands):
    """Inferences that take as long as they are told, window by window."""

    def __init__(self, *windows):
        self.windows = list(windows)

    def _repeat(self, runs, ms):
        return [self.windows.pop(0)] * runs


def test_a_warm_up_ends_when_three_windows_agree():
    found = Slowing(9.0, 5.0, 3.0, 3.1, 3.0, 3.0).warmup(runs=1, ms=0, limit_ms=1e6)
    assert (found["runs"], found["steady"]) == (25, True)


def test_a_warm_up_that_is_never_steady_ends_with_its_time_and_says_so():
    found = Slowing(*range(1, 9)).warmup(runs=20, ms=0, limit_ms=0)
    assert (found["runs"], found["steady"]) == (20, False)
