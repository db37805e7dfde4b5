import pytest

from edgekd import resources
from edgekd.devices import isa, schema, targets
from edgekd.devices.schema import Device
from edgekd.errors import UsageError


def cpuinfo(tmp_path, *lines):
    path = tmp_path / "cpuinfo"
    path.write_text("\n".join(("model name : a CPU", *lines)))
    return path


def target(arch, *isa, **keys):
    return Device(edgekd=1, name="board", transport="host", description="a board", arch=arch, isa=isa, **keys)


def test_host_ships_and_is_this_machine():
    host = schema.load("host")
    assert (host.name, host.transport, host.emulated) == ("host", "host", False)
    assert host.cpu() == isa.detect_isa()


def test_unknown_device_lists_what_there_is():
    with pytest.raises(UsageError, match="host"):
        schema.load("hots")


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "edgekd: 1\nname: pi\ntransport: pigeon\n",
            ["transport: Input should be 'host', 'ssh' or 'adb'", "description: Field required"],
        ),
        ("edgekd: 2\nname: pi\ntransport: host\ndescription: a\n", ["edgekd: Input should be 1"]),
        ("edgekd: 1\nname: pi\ntransport: host\ndescription: a\narch: x86_64\n", ["give arch and isa together"]),
        ("edgekd: 1\nname: po\ntransport: host\ndescription: a\n", ["'po' is not the file's name", "name: pi"]),
        ("- a\n", ["Input should be a valid dictionary"]),
        ("a: [\n", ["is not YAML"]),
    ],
)
def test_mistakes_in_a_file_are_told_all_at_once(tmp_path, monkeypatch, text, messages):
    path = tmp_path / "pi.yaml"
    path.write_text(text)
    monkeypatch.setattr(resources, "find", lambda kind, name: path)
    with pytest.raises(UsageError) as error:
        schema.load("pi")
    for message in (*messages, "pi.yaml"):
        assert message in str(error.value)


def test_x86_flags_are_read(tmp_path):
    found = isa.detect_isa(cpuinfo(tmp_path, "flags : fpu avx avx2 avx512_vnni"), "amd64")
    assert (found.arch, found.features, found.has_int8_dot) == ("x86_64", {"avx2", "avx512_vnni"}, True)


def test_only_what_every_core_has_counts(tmp_path):
    found = isa.detect_isa(cpuinfo(tmp_path, "Features : asimd asimddp", "Features : asimd"), "aarch64")
    assert (found.features, found.has_int8_dot) == ({"asimd"}, False)


def test_unreadable_cpuinfo_gives_no_features(tmp_path):
    assert isa.detect_isa(tmp_path / "none", "x86_64").features == frozenset()


@pytest.mark.parametrize(
    ("devices", "bits"),
    [
        ([target("x86_64", "avx2")], 7),
        ([target("x86_64", "avx2", "avx_vnni")], 8),
        ([target("x86_64", "avx2", "avx512_vnni")], 8),
        ([target("aarch64", "asimd")], 8),
        ([target("aarch64", "asimd"), target("x86_64", "avx2")], 7),
        ([target("x86_64")], 7),  # its instruction sets are not known
        ([target("x86_64", "avx2", pair_sums=32)], 8),  # its file says so
        ([target("aarch64", "asimd", pair_sums=16)], 7),
        ([], 7),
    ],
)
def test_weight_bits_are_safe_on_every_target(devices, bits):
    assert targets.weight_bits_for(devices) == bits


@pytest.mark.parametrize(
    ("devices", "activations"),
    [
        ([target("x86_64", "avx2")], "uint8"),
        ([target("aarch64", "asimd"), target("armv7l", "neon")], "int8"),
        ([target("aarch64", "asimd"), target("x86_64", "avx2")], "uint8"),
        ([], "uint8"),
    ],
)
def test_onnx_activations_are_what_the_kernels_multiply(devices, activations):
    assert targets.onnx_activations_for(devices) == activations


def test_weight_bits_of_an_unreadable_host_are_7(monkeypatch):
    monkeypatch.setattr(schema, "detect_isa", lambda: isa.Isa(""))
    assert targets.weight_bits_for([schema.load("host")]) == 7


@pytest.mark.parametrize(
    ("cpu", "dot", "sums"),
    [
        (target("x86_64", "avx2"), "none", 16),
        (target("x86_64", "avx2", "avx512f", "avx512_vnni"), "vnni", 32),
        (target("x86_64"), "none", None),
        (target("aarch64", "asimd"), "none", 32),
        (target("aarch64", "asimd", "asimddp"), "dot product", 32),
    ],
)
def test_integer_arithmetic_follows_the_instruction_sets(cpu, dot, sums):
    assert (cpu.cpu().int8_dot, cpu.sums()) == (dot, sums)


def test_what_a_runtime_lacks_on_a_device_is_read_from_its_file(tmp_path, monkeypatch):
    path = tmp_path / "npu.yaml"
    path.write_text(
        "edgekd: 1\nname: npu\ntransport: host\ndescription: a\nemulated: true\npair_sums: 32\n"
        "lacks: {tflite: [gelu, silu]}\nio: int8\n"
    )
    monkeypatch.setattr(resources, "find", lambda kind, name: path)
    found = schema.load("npu")
    assert (found.lacks, found.io, found.sums()) == ({"tflite": ("gelu", "silu")}, "int8", 32)
    path.write_text(path.read_text().replace("gelu", "swish"))
    with pytest.raises(UsageError, match=r"npu.yaml: lacks.tflite.0: Input should be 'hardswish'"):
        schema.load("npu")
