"""Phones over the real adb client: the transport, both agents, and what goes wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.devices.conftest import PROGRAM, android
from tests.devices.phone import Client, Phone
from tests.words import differences, doubts, notes

from edgekd.errors import DeviceError, ExitCode, LostError
from edgekd.evaluation import device_checks
from edgekd.evaluation.device_checks import Expected
from edgekd.profiling import agents
from edgekd.profiling.inspection import Wants
from edgekd.profiling.session import measure
from edgekd.profiling.transports import adb
from edgekd.profiling.transports.adb import FOLDER, Adb
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile

QUICK = Profile(devices=("phone",), blocks=3, block_runs=3, block_ms=10, warmup_runs=1, warmup_ms=0)
HOSTILE = "a b'\"; touch owned $(touch owned)\n`touch owned` -rf *.tflite"
NewPhone = Callable[..., Phone]


def left(phone: Phone) -> list[str]:
    """What lies in the folder that edgekd works in."""
    return sorted(path.name for path in (phone.root / FOLDER.lstrip("/")).iterdir())


def test_files_and_programs_get_there_whatever_they_are_called(test_phone: Phone, tmp_path: Path) -> None:
    path = tmp_path / HOSTILE
    path.write_bytes(bytes(range(256)) * 5000)
    with Adb(android(test_phone)) as way:
        remote = way.put(path)
        assert way.put(path) == remote
        assert way.run(["cat", remote], timeout=60).out == path.read_bytes()
        way.get(remote, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
        echoed = way.run(["printf", "%s.", HOSTILE, "", "*"], timeout=60)
        assert echoed.out.decode() == f"{HOSTILE}..*."
        told = way.run(["sh", "-c", 'cat; printf %s "$WORD" >&2; exit 9'], timeout=60, env={"WORD": HOSTILE}, stdin=b"in")
        assert (told.code, told.out, told.err.decode()) == (9, b"in", HOSTILE)
        assert way.run(["no-such-program"], timeout=60).code == 127
        with (tmp_path / "noise").open("w+b") as noise:
            with way.spawn(["cat"], noise=noise) as process:
                answer, _ = process.communicate(b"line\n", timeout=60)
            assert (answer, process.returncode, way.lost(0, "")) == (b"line\n", 0, None)
    assert left(test_phone) == []


def test_a_program_that_hangs_is_ended_on_the_phone(test_phone: Phone) -> None:
    with Adb(android(test_phone)) as way, pytest.raises(DeviceError, match="did not end within 2 s; it was ended"):
        way.run(["sh", "-c", "sleep 1234; true"], timeout=2)
    assert not test_phone.running("1234")


def test_a_full_disk_is_told_with_what_to_do(test_phone: Phone) -> None:
    with Adb(android(test_phone, folder="/data/small")) as way, pytest.raises(DeviceError, match="No space left") as told:
        way.write("big", bytes(1 << 18))
    assert "make room in /data/small on the phone, or set folder:" in told.value.hint


def test_one_session_at_a_time_and_dead_ones_leave_nothing(
    test_phone: Phone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = test_phone.root / FOLDER.lstrip("/")
    (folder / "edgekd-dead").mkdir()
    (folder / "edgekd.lock").symlink_to("999999")  # as a phone that was switched off leaves them
    with Adb(android(test_phone)) as way:
        assert len(left(test_phone)) == 2  # its own folder and lock
        with pytest.raises(DeviceError, match="is in use by this edgekd"), Adb(android(test_phone)):
            pass
        monkeypatch.setattr(adb, "this_process", lambda: "another")  # as far as this machine can tell
        with pytest.raises(DeviceError, match=r"on this machine: \S+@\S+ \(process \d+\)"), Adb(android(test_phone)):
            pass
        monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))  # another machine, as far as the phone can tell
        with pytest.raises(DeviceError, match=r"is in use by another edgekd: \S+@\S+ \(process"), Adb(android(test_phone)):
            pass
        assert way.run(["true"], timeout=60).code == 0
    assert left(test_phone) == []


def test_a_cable_that_is_pulled_in_the_middle(new_phone: NewPhone, tmp_path: Path) -> None:
    phone = new_phone()
    phone.start()
    (tmp_path / "big").write_bytes(bytes(1 << 20))
    noise = (tmp_path / "noise").open("w+b")
    with noise, Adb(android(phone)) as way, way.spawn(["sleep", "1234"], noise=noise) as process:
        threading.Timer(1.0, phone.unplug).start()
        with pytest.raises(LostError, match="the connection was lost") as told:
            way.run(["sleep", "2345"], timeout=60)
        assert told.value.exit_code == ExitCode.DEVICE_FAILED
        assert "the connection was lost" in str(way.lost(process.wait(60), ""))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (phone.running("1234") or phone.running("2345") or left(phone)):
        time.sleep(0.2)
    assert not phone.running("1234")
    assert not phone.running("2345")
    assert left(phone) == []
    (phone.state / "cut_after").write_text("100000")
    with pytest.raises(DeviceError, match="big could not be copied to the phone"), _once_back(phone) as way:
        way.put(tmp_path / "big")


def _once_back(phone: Phone) -> Adb:
    """The transport, once the client sees the phone again."""
    for _ in range(100):
        if f"{phone.serial}\tdevice" in phone._client.ask("devices"):
            break
        time.sleep(0.1)
    return Adb(android(phone))


def test_a_phone_that_trusts_nobody_yet_and_one_that_is_switched_off(new_phone: NewPhone, adb_client: Client) -> None:
    phone = new_phone()
    phone.state.joinpath("keys").write_text("")
    phone.start()
    with pytest.raises(DeviceError, match="does not trust this computer yet") as told, Adb(android(phone)):
        pass
    assert "accept the question" in told.value.hint
    phone.state.joinpath("keys").write_bytes(phone.state.joinpath("asked").read_bytes())  # the user accepts
    adb_client.ask("disconnect", phone.serial)
    adb_client.ask("connect", phone.serial)
    with _once_back(phone) as way:
        assert way.run(["true"], timeout=60).code == 0
    phone.stop()
    for _ in range(100):
        if f"{phone.serial}\toffline" in adb_client.ask("devices"):
            break
        time.sleep(0.1)
    with pytest.raises(DeviceError, match="is offline") as told, Adb(android(phone)):
        pass
    assert told.value.exit_code == ExitCode.DEVICE_FAILED
    assert "adb kill-server" in told.value.hint
    phone.start(connect=False)


def test_of_two_phones_one_has_to_be_named(test_phone: Phone, new_phone: NewPhone) -> None:
    second = new_phone()
    second.state.joinpath("model").write_text("Second")
    second.start()
    with pytest.raises(DeviceError, match=r"there are 2 phones: ") as told:
        Adb(android(test_phone, serial=None)).__enter__()
    assert f"{second.serial} (Second)" in told.value.message
    assert f"{test_phone.serial} (Test_Phone)" in told.value.message
    assert "serial: " in told.value.hint


def test_a_phone_of_before_android_7(new_phone: NewPhone, tmp_path: Path) -> None:
    phone = new_phone()
    phone.state.joinpath("legacy").touch()
    phone.start()
    with Adb(android(phone)) as way, (tmp_path / "noise").open("w+b") as noise:
        remote = way.write("text", b"some text")
        told = way.run(["sh", "-c", 'cat "$1"; exit 7', "sh", remote], timeout=60)
        assert (told.code, told.out) == (7, b"some text")
        with pytest.raises(DeviceError, match="before Android 7") as refused:
            way.spawn(["cat"], noise=noise)
        assert "agent: benchmark_model" in refused.value.hint
    assert left(phone) == []


def test_with_python_the_phone_measures_as_any_board(test_phone: Phone, nets: Path, tmp_path: Path) -> None:
    session = measure([Variant("tflite", "tflite", nets / "float.tflite")], QUICK, android(test_phone), tmp_path)
    assert session.failures == ()
    (record,) = session.profiles
    assert record.agent == "python"
    assert record.latency_ms.p99 is not None
    assert [state.battery_percent for state in record.states] == [81] * 3
    told = session.device
    assert (told.model, told.os, told.celsius) == ("edgekd Test Phone QEMU", "Android 14", 29.1)
    assert told.more["battery_percent"] == "81"
    assert told.python, "and what its interpreter tells"


def test_without_python_benchmark_model_gives_what_it_can(test_phone: Phone, nets: Path, tmp_path: Path) -> None:
    """It also gets warm in the last block."""
    device = android(
        test_phone, agent="benchmark_model", benchmark_model=PROGRAM, benchmark_options={"use_gpu": True}, cores=[0]
    )

    def heat(what: str, done: int, total: int) -> None:
        if what.startswith("block 3"):
            (test_phone.state / "thermal").write_text("2")

    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype("float32"))
    fed = {"serving_default_args_0": tmp_path / "x.npy"}
    variants = [Variant("tflite", "tflite", nets / "float.tflite", fed), Variant("onnx", "onnx", nets / "float.onnx")]
    try:
        session = measure(variants, QUICK, device, tmp_path, heat, wants=Wants())
    finally:
        (test_phone.state / "thermal").unlink(missing_ok=True)
    (record,) = session.profiles
    assert record.agent == "benchmark_model"
    assert record.effective.runtime.startswith("benchmark_model ")
    assert [took.name for took in record.effective.delegates or ()] == ["XNNPACK"]
    assert record.latency_ms.min <= record.latency_ms.p50
    assert (record.latency_ms.p90, record.latency_ms.p99, record.load_ms.cold, record.memory.runtime) == (None,) * 4
    assert record.memory.peak > record.memory.model > 0
    assert (record.images, record.cores) == (2, (0,))
    assert "throttled in block 3" in doubts(record.trust.reasons)
    assert [state.throttled for state in record.states] == [False, False, True]
    assert "tflite on phone: GPU was asked for and took no operation of the model" in notes(session.notes)
    assert session.failures == ()
    assert "onnx on phone: not applicable: benchmark_model runs .tflite files only" in notes(session.notes)
    with pytest.raises(DeviceError, match="can have none of the files"):
        measure(variants[1:], QUICK, device, tmp_path)
    host = device_checks.on_host(variants[:1])["tflite"]
    for wrong, differs in ((0, False), (1, True)):
        known = {"tflite": Expected(host=replace(host, arrays={name: x + wrong for name, x in host.arrays.items()}))}
        checked = device_checks.check(session, variants, device, known, reached=False)
        (found,) = checked.profiles[0].outputs
        assert (found.n, bool(found.differs), bool(differences(checked.profiles))) == (2, differs, differs)


def test_the_layer_where_a_phone_differs_is_named(test_phone: Phone, nets: Path, tmp_path: Path) -> None:
    wrong = {"STAND_IN": "wrong"}
    device = android(test_phone, agent="benchmark_model", benchmark_model=PROGRAM, env=wrong)
    variant = Variant("tflite", "tflite", nets / "float.tflite")
    session = measure([variant], QUICK, device, tmp_path, wants=Wants(operations=False))
    known = {"tflite": Expected(host=device_checks.on_host([variant])["tflite"])}
    checked = device_checks.check(session, [variant], device, known)
    (found,) = checked.profiles[0].outputs
    assert found.differs
    assert found.worst_layer
    assert f"The difference begins in {found.worst_layer}" in differences(checked.profiles)[0]


def test_a_benchmark_model_that_does_not_work(test_phone: Phone, nets: Path, tmp_path: Path) -> None:
    programs = {
        "#!/bin/sh\necho usage: another program\n": "its output is not that of benchmark_model",
        "#!/bin/sh\nkill -ILL $$\n": "benchmark_model died with SIGILL",
        "#!/bin/sh\necho 'ERROR: Failed to load model x' >&2; exit 1\n": "ended with code 1: Failed to load model x",
        "#!/bin/sh\necho 'WARN: Unconsumed cmdline flags: --use_nnapi=true'\n": "does not know --use_nnapi=true",
        "\x7fELF": "benchmark_model ended with code 12[67]",
    }
    with Adb(android(test_phone)) as way:
        variant = Variant("tflite", "tflite", nets / "float.tflite")
        path = way.put(variant.path)
        for number, (text, message) in enumerate(programs.items()):
            program = tmp_path / f"program {number}"
            program.write_text(text)
            device = android(test_phone, agent="benchmark_model", benchmark_model=str(program))
            agent = agents.of(device, way, ()).start(variant, "tflite on phone")
            with pytest.raises(DeviceError, match=f"^tflite on phone: .*{message}"):
                agent.ask("start", 60, runtime="tflite", path=path, threads=1)
        device = android(test_phone, agent="benchmark_model", benchmark_model=str(tmp_path / "none"))
        with pytest.raises(DeviceError, match="there is no benchmark_model: .* is not a file"):
            agents.of(device, way, ()).start(variant, "tflite on phone")
