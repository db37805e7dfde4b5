import json
import sys
import threading

import pytest
from click.testing import CliRunner

from edgekd.cli import cli
from edgekd.devices import schema
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, ExitCode, RecipeError, UsageError
from edgekd.profiling import adding, readiness
from edgekd.profiling.transports.base import OursError
from edgekd.profiling.transports.host import Host
from edgekd.recipe import Recipe

RECIPE = {
    "edgekd": 1, "data": {"source": "fashion-mnist-mini"}, "student": {"model": "edgekd:resnet10"},
    "quantize": {"method": "ptq"}, "export": ["tflite"],
}  # fmt: skip


def board(**keys):
    return Device(**{"name": "board", "transport": "ssh", "host": "pi@board", "python": ("/no/python",), **keys})


@pytest.fixture
def ssh(monkeypatch, over_ssh):
    """Boards are this machine; one called silent never answers."""
    end = threading.Event()

    class Silent(Host):
        reached = False

        def __enter__(self):
            end.wait(30)
            raise DeviceError("too late")

    over_ssh(lambda device: Silent() if device.name == "silent" else Host())
    yield
    end.set()


def call(*words):
    found = CliRunner().invoke(cli, words, catch_exceptions=False, standalone_mode=False)
    return found.return_value, found.output


def test_all_problems_of_all_devices_are_told_at_once(ssh, monkeypatch):
    monkeypatch.setattr(readiness, "REACH_S", 3.0)
    devices = [schema.load("host"), board(), board(name="silent")]
    found = readiness.ask(devices, [("onnx",)] * 3)
    assert [(record.name, record.answered, bool(record.problems)) for record in found] == [
        ("host", True, False), ("board", False, True), ("silent", False, True),
    ]  # fmt: skip
    assert [(runtime.format, runtime.works) for runtime in found[0].runtimes] == [("onnx", True)]
    with pytest.raises(DeviceError) as error:
        readiness.refuse(found)
    assert error.value.exit_code == ExitCode.DEVICE_FAILED
    assert error.value.message.startswith("2 of 3 devices are not ready:\n  board: board has no Python that answers")
    assert "\n  silent: silent does not answer within 3 s\n    → try it by hand: ssh pi@board" in error.value.message
    assert "--without-devices" in error.value.hint
    (line,) = readiness.ready(found)
    assert line.startswith("host: ready; onnxruntime 1.")
    readiness.refuse(found[:1])


def test_files_of_one_board_are_asked_in_turn_and_a_slow_one_is_waited_for(monkeypatch, over_ssh):
    lock = threading.Lock()

    class Shared(Host):
        def __enter__(self):
            if not lock.acquire(blocking=False):
                raise OursError("in use by this edgekd")
            return super().__enter__()

        def __exit__(self, *what):
            super().__exit__(*what)
            lock.release()

    over_ssh(lambda device: Shared())
    monkeypatch.setattr(readiness, "REACH_S", 0.01)
    devices = [board(name=name, python=(sys.executable,)) for name in ("one", "two")]
    found = readiness.ask(devices, [("onnx",)] * 2)
    assert [(record.name, record.problems) for record in found] == [("one", ()), ("two", ())]
    assert any("(slow: answered after " in line for line in readiness.ready(found))


def test_a_board_that_takes_the_connection_and_says_nothing(monkeypatch, over_ssh):
    end = threading.Event()

    class Stuck(Host):
        def __enter__(self):
            end.wait(30)
            raise DeviceError("too late")

    over_ssh(lambda device: Stuck())
    monkeypatch.setattr(readiness, "REACH_S", 0.01)
    monkeypatch.setattr(readiness, "ANSWER_S", 0.1)
    (found,) = readiness.ask([board()], [()])
    end.set()
    assert found.problems[0].startswith("board takes the connection, but does not answer within")


def test_a_mistake_of_edgekd_on_one_device_is_told_at_once(monkeypatch, over_ssh):
    over_ssh(lambda device: Odd())

    class Odd(Host):
        def __enter__(self):
            raise ValueError("odd")

    wrong, host = readiness.ask([board(), schema.load("host")], [("onnx",)] * 2)
    assert wrong.problems[0].startswith("unexpected error (a bug in edgekd): ValueError: odd")
    assert host.answered


def test_an_interruption_ends_what_devices_are_asked(monkeypatch, over_ssh):
    ended = threading.Event()

    class Stuck(Host):
        def __enter__(self):
            try:
                self.local.run(["sleep", "1000"], timeout=1000)
            finally:
                ended.set()

    def interrupted(self):
        raise KeyboardInterrupt

    over_ssh(lambda device: Stuck())
    monkeypatch.setattr(readiness._Asked, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        readiness.ask([board()], [()])
    assert ended.wait(20)


def test_what_a_device_is_asked_for_follows_the_recipe():
    recipe = Recipe.model_validate(RECIPE)
    assert readiness.formats(recipe, board()) == ("onnx", "tflite")
    assert readiness.formats(recipe, board(agent="benchmark_model", benchmark_model="b")) == ("tflite",)


def test_the_devices_are_listed_with_whether_they_answer(ssh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(readiness, "REACH_S", 20.0)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "mine.yaml").write_text("transport: host\n")
    (tmp_path / "devices" / "wrong.yaml").write_text("transport: pigeon\n")
    text = call("devices")[1]
    assert "examples, not asked: android-phone, raspberry-pi-4, raspberry-pi-5 " in text
    assert "does not answer" not in text
    code, text = call("devices", "--all", "--json")
    found = json.loads(text)
    assert (code, found["ok"], found["exit_code"]) == (ExitCode.OK, True, 0)
    assert {record["name"]: record["answered"] for record in found["devices"]} == {
        "android-phone": False, "host": True, "mine": True, "raspberry-pi-4": True, "raspberry-pi-5": True,
    }  # fmt: skip
    assert found["wrong"]["wrong"][0]["where"].endswith("wrong.yaml:1:12")


def test_doctor_says_by_its_exit_code_whether_all_is_fine(ssh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text = call("doctor", "host")
    assert (code, "onnxruntime" in text, "known faults" in text) == (ExitCode.OK, True, True)
    (tmp_path / "pi.yaml").write_text("transport: ssh\nhost: pi\npython: [/no/python]\n")
    code, text = call("doctor", "pi.yaml", "--json")
    found = json.loads(text)
    assert (code, found["exit_code"], found["ok"], found["device"]["answered"]) == (4, 4, False, False)
    with pytest.raises(UsageError, match="there is no device called 'pii'"):
        call("doctor", "pii")


def test_a_board_is_asked_and_its_file_written_but_never_over_another(ssh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text = call("devices", "add", "pi@board.local", "--port", "2222", "--python", sys.executable)
    assert (code, "In a recipe: profile: {devices: [board]}" in text) == (0, True)
    assert text.startswith("board: "), "what it is, not a gap"
    assert "arch and isa are not in its file" not in text
    assert "known faults" in text
    device, host = schema.load("board", tmp_path), schema.load("host")
    assert (device.host, device.port, device.name) == ("pi@board.local", 2222, "board")
    assert (device.arch, set(device.isa)) == (host.cpu().arch, host.cpu().features)
    with pytest.raises(UsageError, match=r"devices/board.yaml is there already"):
        call("devices", "add", "pi@board.local")
    assert call("devices", "add", "pi@board.local", "--force", "--emulated")[0] == 0
    assert schema.load("board", tmp_path).port is None
    assert (device.emulated, schema.load("board", tmp_path).emulated) == (False, True)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("pi@raspberrypi.local", "raspberrypi"),
        ("bench", "bench"),
        ("pi@10.0.0.7", "10.0.0.7"),
        ("adb:R58M:1", "R58M-1"),
        ("ssh://pi5", "pi5"),
        ("ssh://pi@pi5:22", "pi5"),
        ("pi@::1", "board-1"),
        ("pi@[fe80::1%eth0]", "fe80-1-eth0"),
    ],
)
def test_a_device_is_called_by_its_host_or_serial(target, name):
    assert adding.chosen(target, None, None, ()).name == name


def test_a_target_that_is_an_option_is_refused():
    for target, name in (("-oProxyCommand=x", None), ("pi@x", "a b")):
        with pytest.raises(UsageError):
            adding.chosen(target, name, None, ())


def test_a_file_that_cannot_be_written_is_said_before_a_board_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").touch()
    with pytest.raises(UsageError, match="devices is not a folder"):
        call("devices", "add", "pi@board.local")


@pytest.mark.parametrize(("target", "name"), [("pi5", "host"), ("pi@host", None), ("adb:host", None)])
def test_no_other_device_is_called_host(target, name):
    with pytest.raises(UsageError, match="host is the name of the machine that runs edgekd") as error:
        adding.chosen(target, name, None, ())
    assert "--name" in error.value.hint


def test_what_ships_is_right():
    assert schema.load("raspberry-pi-4").sums() == schema.load("raspberry-pi-5").sums() == 32
    assert schema.load("android-phone").transport == "adb"
    assert not schema.load("raspberry-pi-4").cpu().has_int8_dot
    with pytest.raises(RecipeError):
        schema.load(__file__)


def test_nothing_is_trained_where_a_device_is_not_ready(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "board.yaml").write_text("transport: host\narch: armv7l\nisa: [neon]\n")
    recipe = {**RECIPE, "profile": {"devices": ["board", "host"]}, "distill": {"epochs": 1, "losses": [{"kind": "task"}]}}
    (tmp_path / "my.yaml").write_text(json.dumps(recipe))
    with pytest.raises(DeviceError, match=r"1 of 2 devices is not ready:\n  board: its file has arch: armv7l"):
        call("run", "my.yaml")
    assert not (tmp_path / "reports").exists()
    code, text = call("plan", "my.yaml", "--ask-devices", "--json")
    assert (code, [record["name"] for record in json.loads(text)["devices"]]) == (4, ["board", "host"])
    assert call("plan", "my.yaml")[0] == 0, "offline"
    with pytest.raises(RecipeError, match="there is no device called 'bord'"):
        call("run", "my.yaml", "--set", "profile.devices=[bord]", "--without-devices")
