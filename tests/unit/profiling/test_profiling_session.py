import json
import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from tests import ctrl_c
from tests.words import notes

from edgekd.artifacts.profile import Settings, profile
from edgekd.devices import schema
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, ExitCode, LostError
from edgekd.profiling import inspection, measured, transports
from edgekd.profiling.agents import python
from edgekd.profiling.agents.python import PythonAgents
from edgekd.profiling.inspection import Wants
from edgekd.profiling.measured import Run
from edgekd.profiling.on_device import keeper
from edgekd.profiling.on_device.commands import Commands
from edgekd.profiling.session import measure
from edgekd.profiling.transports.host import Host
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile
from edgekd.report.view import build
from edgekd.results.codec import from_json, to_json
from edgekd.results.profile import ProfileRecord, RuntimeFound

SHORT = Profile(warmup_runs=2, warmup_ms=1, blocks=3, block_ms=1, block_runs=4)


@pytest.fixture(scope="module")
def host():
    """This machine; the small networks here are never steady, so that nothing is measured again."""
    return schema.load("host").model_copy(update={"retries": 0})


@pytest.fixture(scope="module")
def everything(nets, host, tmp_path_factory):
    """One session over all runtimes, with a file among them that no runtime can read."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "broken.tflite").write_bytes(b"not a model")
    np.save(folder / "x.npy", np.zeros((2, 3, 16, 16), "float32"))
    variants = [
        Variant("onnx_float", "onnx", nets / "float.onnx", {"x": folder / "x.npy"}),
        Variant("onnx", "onnx", nets / "int8.onnx"),
        Variant("broken", "tflite", folder / "broken.tflite"),
        Variant("tflite", "tflite", nets / "float.tflite"),
        Variant("openvino", "openvino", nets / "float.xml"),
    ]
    told = []
    session = measure(variants, SHORT, host, folder, lambda *step: told.append(step))
    return session, folder, told


def test_every_variant_that_runs_has_a_record(everything):
    session, _, _ = everything
    assert [record.model for record in session.profiles] == ["onnx_float", "onnx", "tflite", "openvino"]
    for record in session.profiles:
        assert record.latency_ms.min <= record.latency_ms.p50 <= record.latency_ms.p90 <= record.latency_ms.p99
        assert record.latency_ms.ci[0] <= record.latency_ms.p50 <= record.latency_ms.ci[1]
        assert record.latency_ms.n >= 12
        assert len(record.blocks) == 3
        assert record.memory.model == pytest.approx(record.memory.peak - record.memory.runtime)
        assert record.memory.model > 0
        assert record.memory.runtime < record.memory.trivial < record.memory.peak + 3
        assert from_json(ProfileRecord, json.loads(json.dumps(to_json(record)))) == record


def test_what_the_runtime_did_is_read_back(everything):
    effective = {record.model: record.effective for record in everything[0].profiles}
    assert set(effective["onnx_float"].operations) == {"float32"}
    assert set(effective["onnx"].operations) == {"int8"}
    assert [took.name for took in effective["onnx"].delegates] == ["CPUExecutionProvider"]
    assert [took.name for took in effective["tflite"].delegates] == ["XNNPACK"]
    assert (effective["openvino"].delegates, effective["openvino"].settings) == (None, {"INFERENCE_PRECISION_HINT": "f32"})
    for name, package in (("onnx", "onnxruntime"), ("tflite", "ai-edge-litert"), ("openvino", "openvino")):
        assert effective[name].runtime.startswith(f"{package} ")
        assert effective[name].threads == 1


def test_the_record_of_this_machine_names_no_folder_of_it(everything):
    assert {Path(found.python).name for found in everything[0].device.runtimes} == {
        found.python for found in everything[0].device.runtimes
    }


def test_a_graph_that_the_delegate_cuts_is_told(nets, host, tmp_path):
    session = measure([Variant("tflite", "tflite", nets / "cut.tflite")], SHORT, host, tmp_path)
    (took,) = session.profiles[0].effective.delegates
    assert (took.name, took.taken, took.parts) == ("XNNPACK", took.of - 1, 2)


def test_a_broken_file_loses_itself_alone_and_says_why(everything):
    (failure,) = everything[0].failures
    assert (failure.model, failure.device) == ("broken", "host")
    assert failure.reason.startswith("the runtime refused while loading the model")


def test_a_device_that_can_have_none_of_the_files_is_told_before_it_is_asked(nets, tmp_path):
    phone = Device(name="phone", transport="adb", agent="benchmark_model", benchmark_model="/no/program")
    with pytest.raises(DeviceError, match="phone can have none of the files: benchmark_model runs .tflite files only"):
        measure([Variant("onnx", "onnx", nets / "float.onnx")], SHORT, phone, tmp_path)


def test_raw_samples_give_the_figures_again_and_the_order_moves(everything):
    session, folder, _ = everything
    lines = [json.loads(line) for line in (folder / Path(session.profiles[0].samples).name).read_text().splitlines()]
    for record in session.profiles:
        mine = [line for line in lines if line["model"] == record.model]
        assert [line["round"] for line in mine] == [0, 1, 2]
        assert len({line["order"] for line in mine}) == 3
        assert statistics.median([ms for line in mine for ms in line["samples_ms"]]) == pytest.approx(record.latency_ms.p50)
    assert [line["at_s"] for line in lines] == sorted(line["at_s"] for line in lines)


def test_a_record_says_how_many_images_it_was_measured_on(everything):
    assert {record.model: record.images for record in everything[0].profiles} == {
        "onnx_float": 2, "onnx": 0, "tflite": 0, "openvino": 0,
    }  # fmt: skip


def test_an_input_that_the_model_has_not_is_a_failure(nets, host, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), "float32"))
    session = measure([Variant("onnx", "onnx", nets / "float.onnx", {"mask": tmp_path / "x.npy"})], SHORT, host, tmp_path)
    assert "the model takes x, the inputs are mask" in session.failures[0].reason


def test_progress_tells_the_work_and_its_size(everything):
    told = everything[2]
    assert told[0] == ("memory of onnx with a trivial model", 0, 30)
    assert ("load onnx", 1, 30) in told
    assert ("block 2/3 onnx", 13, 30) in told


def test_an_input_that_does_not_fit_is_a_failure(nets, host, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 8, 8), "float32"))
    session = measure([Variant("onnx", "onnx", nets / "float.onnx", {"x": tmp_path / "x.npy"})], SHORT, host, tmp_path)
    assert not session.profiles
    assert "the model takes float32 [1, 3, 16, 16], the input is float32 [1, 3, 8, 8]" in session.failures[0].reason


class Saboteur(Host):
    """Kills the first agent of a variant with a signal when the second round begins; the one before looks at the device."""

    def __init__(self, number):
        self.number, self.agents = number, []

    def spawn(self, argv, **options):
        self.agents.append(super().spawn(argv, **options))
        return self.agents[-1]

    def progress(self, what, done, total):
        if what.startswith("block 2/") and what.endswith("first"):
            os.kill(self.agents[1].pid, self.number)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGILL, "SIGILL"), (signal.SIGSEGV, "SIGSEGV")])
def test_a_runtime_that_dies_is_a_finding_with_its_signal(nets, host, tmp_path, number, name):
    way = Saboteur(number)
    variants = [Variant(model, "onnx", nets / "float.onnx") for model in ("first", "second")]
    session = measure(variants, SHORT, host, tmp_path, way.progress, way)
    assert [record.model for record in session.profiles] == ["second"]
    assert session.failures[0].reason.startswith(f"the runtime died with {name} while measuring")


class SwitchedOff(Host):
    """Is switched off when the outputs of a file have been brought."""

    on = True

    def get(self, remote, path):
        super().get(remote, path)
        self.on = False
        for agent in self.agents:
            agent.kill()

    def __enter__(self):
        self.agents = []
        return super().__enter__()

    def spawn(self, argv, **options):
        if not self.on:
            raise self.lost(255, "")
        self.agents.append(super().spawn(argv, **options))
        return self.agents[-1]

    def lost(self, code, noise):
        return None if self.on else LostError("the connection to pi ended", "run again when pi is back")


def test_a_device_that_is_lost_after_the_blocks_is_a_failure_and_keeps_what_was_measured(nets, tmp_path, monkeypatch):
    monkeypatch.setattr(transports, "to", lambda device: SwitchedOff() if device.name == "pi" else Host())
    (tmp_path / "pi.yaml").write_text("edgekd: 1\ntransport: host\nretries: 0\n")
    settings = Settings((str(tmp_path / "pi.yaml"),), protocol=SHORT, out=tmp_path)
    done = profile([nets / "float.onnx", nets / "int8.onnx"], settings)
    assert done.exit_code == ExitCode.DEVICE_FAILED
    assert [record.model for record in done.result.profiles] == ["float", "int8"]
    assert [failure.reason for failure in done.result.failures] == [
        "the connection to pi ended while timing single operations; not measured: single operations\n"
        "  → run again when pi is back",
        "the connection to pi ended; not measured: outputs, single operations\n  → run again when pi is back",
    ]
    verdict = build(done.result).verdict
    assert verdict.word == "In part"
    assert len(verdict.failures) == 2
    assert "float on pi: the connection to pi ended while timing single operations" in verdict.failures[0]


def test_a_device_that_is_lost_in_the_minutes_without_a_pause_is_a_failure(nets, host, tmp_path):
    way = SwitchedOff()

    def progress(what, done, total):
        way.on = way.on and "without a pause" not in what
        if not way.on:
            way.agents[-1].kill()

    protocol = SHORT.model_copy(update={"sustained_minutes": 0.1})
    session = measure([Variant("a", "onnx", nets / "float.onnx")], protocol, host, tmp_path, progress, way)
    assert len(session.profiles) == 1
    assert "ended while running without a pause; not measured to the end: " in session.failures[0].reason


def test_every_command_of_the_agent_has_words():
    commands = {name for name, found in vars(Commands).items() if callable(found) and name[0] != "_"}
    assert commands | {"warmup", "block"} == set(python._WORK)


def test_a_silent_agent_is_killed_not_waited_for(host):
    with Host() as way:
        agent = PythonAgents(host, way, [RuntimeFound("onnx", "onnxruntime", python=sys.executable)]).start(
            Variant("onnx", "onnx", Path()), "onnx on host"
        )
        os.kill(agent.pid, signal.SIGSTOP)
        try:
            with pytest.raises(
                DeviceError, match=r"onnx on host: no answer within 0 s while warming up; the agent was killed"
            ):
                agent.ask("warmup", 0.2, runs=1, ms=1)
        finally:
            agent.close()


def test_no_agent_outlives_ctrl_c(nets, tmp_path):
    """Interrupted in the middle of an endless block, with two agents alive."""
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from edgekd.devices import schema
        from edgekd.profiling.transports.host import Host
        from edgekd.profiling.session import Variant, measure
        from edgekd.recipe import Profile

        class Loud(Host):
            def spawn(self, argv, **options):
                agent = super().spawn(argv, **options)
                print(agent.pid, flush=True)
                return agent

        def progress(what, done, total):
            print(what, flush=True)

        variants = [Variant(name, "onnx", Path(sys.argv[1])) for name in ("a", "b")]
        protocol = Profile(warmup_runs=1, warmup_ms=1, blocks=3, block_ms=60000)
        measure(variants, protocol, schema.load("host"), Path(sys.argv[2]), progress, Loud())
        """
    )
    command = [sys.executable, "-c", script, str(nets / "float.onnx"), str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(ctrl_c.heard(command), **pipes, text=True) as session:
        pids = [int(session.stdout.readline()) for _ in range(3)]  # the first looks at the device
        while not session.stdout.readline().startswith("block 1/3"):
            pass
        session.send_signal(signal.SIGINT)
        assert session.wait(30) != 0
        assert "KeyboardInterrupt" in session.stderr.read()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_nothing_outlives_a_killed_edgekd(tmp_path):
    """The guard of this machine ends the agents, also one that does not read its stdin, and removes the folder."""
    script = textwrap.dedent(
        """
        import tempfile, time
        from edgekd.profiling.transports.host import Host

        with Host() as way:
            way.spawn(["sh", "-c", "setsid sleep 1000 & exec sleep 1000"], noise=tempfile.TemporaryFile())
            print(way.write("file", b""), flush=True)
            time.sleep(1000)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as session:
        folder = Path(session.stdout.readline().strip()).parent
        assert keeper.marked(f"{folder.name}.")
        session.kill()
    deadline = time.monotonic() + 20
    while (keeper.marked(f"{folder.name}.") or folder.exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not folder.exists()
    assert not keeper.marked(f"{folder.name}.")


def test_a_look_that_edgekd_is_not_prepared_for_is_a_note_and_the_next_has_an_agent_of_its_own():
    asked = []

    class Odd:
        label = "odd"

        def ask(self, command, timeout, **arguments):
            asked.append((self, command))
            return {"why": "no reason"} if command == "operations" else {"path": None}

        def close(self, *, grace=0.0):
            pass

    found = inspection.inspect(Variant("net", "onnx", Path()), Odd, Host(), Wants(), "host", Profile())
    outputs, operations = notes(found.notes)
    assert outputs.startswith("outputs of net on host: unexpected error (a bug in edgekd): TypeError: ")
    assert operations == "single operations of net on host: no reason"
    assert len({agent for agent, _ in asked}) == 2


def state(**change):
    return {"at": 0.0, "busy": 0.0, "steal": 0.0, "load": 0.5, "cores": 4, "throttled": 0, **change}


def test_own_work_is_not_another_processs_load():
    run = Run(None, None, warmup={"spent_s": 1.0}, blocks=[{"spent_s": 3.0}, {"spent_s": 9.0}])
    found = measured.conditions(state(), state(at=10.0, busy=11.0, steal=1.0), [run], emulated=False)
    assert found.others == pytest.approx(0.3)
    assert found.steal == pytest.approx(1 / 12)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"throttled": 4}, {"throttled": 5}, "throttled"),
        ({"throttled": 4}, {"throttled": 4}, ""),
        ({"firmware": "50000"}, {"firmware": "0x50000"}, ""),  # since boot, not in this block
        ({"firmware": "0"}, {"firmware": "40000"}, "throttled"),
        ({"firmware": "50000"}, {"firmware": "50005"}, "throttled and under-voltage"),
        ({"firmware": "80008"}, {"firmware": "80008"}, "soft temperature limit reached"),  # and still is
    ],
)
def test_only_throttling_during_the_block_counts(before, after, said):
    assert measured.throttling(before, after) == said


def test_throttling_is_told_with_the_number_of_its_block():
    run = Run(None, None, rounds=[({}, {}), ({}, {"firmware": "40004"}), ({"firmware": "40004"}, {"firmware": "40000"})])
    assert measured.conditions(state(), state(at=1.0), [run], False).throttled == {2: "throttled"}


def test_powersave_is_slow_unless_a_pstate_driver_means_something_else_by_it():
    for driver, held in (("acpi-cpufreq", True), ("intel_pstate", False)):
        found = measured.conditions(state(), state(at=1.0, governor="powersave", driver=driver), [], False)
        assert (found.governor, found.held_down) == ("powersave", held)


def test_an_unreadable_state_is_not_trusted():
    assert measured.conditions({}, {}, [], False).others is None


def test_profiling_needs_neither_torch_nor_a_runtime_in_this_process():
    modules = "edgekd.profiling.session, edgekd.devices.schema, edgekd.profiling.verdicts"
    heavy = "{'torch', 'onnxruntime', 'openvino', 'ai_edge_litert'}"
    subprocess.run([sys.executable, "-c", f"import sys, {modules}; assert not {heavy} & set(sys.modules)"], check=True)
