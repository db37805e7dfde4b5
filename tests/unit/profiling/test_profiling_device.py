import pytest

from edgekd import resources
from edgekd.devices import isa, schema, targets
from edgekd.devices.schema import Device
from edgekd.errors import RecipeError, UsageError
from edgekd.recipe import Recipe


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
            "name: pi\ntransport: pigeon\nhots: a\nthreads: 'a'\n",
            [
                "pi.yaml:2:12: transport: unknown transport 'pigeon'\n",
                "pi.yaml:3:1: hots: unknown key\n  3 | hots: a\n    | ^^^^\n  → did you mean host?",
                "pi.yaml:4:10: threads: must be a whole number above 0, not the text 'a'",
            ],
        ),
        ("edgekd: 2\ntransport: host\n", ["pi.yaml:1:9: edgekd: must be 1, not 2"]),
        ("description: a\n", ["pi.yaml:1:1: transport: is missing\n  → add transport: host, ssh or adb"]),
        ("transport: host\narch: x86_64\n", ["pi.yaml:2:7: arch: arch is given without isa"]),
        ("transport: host\nport: 22\n", ["port: is not used with transport: host", "it is a key of transport: ssh"]),
        ("transport: ssh\n", ["transport: ssh does not say which host\n  → add host: USER@HOST"]),
        ("transport: ssh\nhost: -oProxyCommand=x\n", ["pi.yaml:2:7: host: '-oProxyCommand=x' is no host"]),
        ("transport: adb\nhost: a\n", ["host: is not used with transport: adb"]),
        ("transport: adb\nagent: benchmark_model\n", ["add benchmark_model: PATH"]),
        (
            'transport: adb\nbenchmark_options: {"graph=x --help": 1}\n',
            ["pi.yaml:2:20: benchmark_options: 'graph=x --help' is no name of an option"],
        ),
        ("name: po\ntransport: host\n", ["pi.yaml:1:7: name: 'po' is not the file's name\n", "write name: pi"]),
        ("- a\n", ["pi.yaml:1:1: a device's file is a mapping (key: value), not a list"]),
        ("a: b: c\n", ["pi.yaml:1:5: a second ':' in one value"]),
        ("", ["the file is empty"]),
    ],
)
def test_mistakes_in_a_file_are_told_all_at_once_each_at_its_place(tmp_path, text, messages):
    path = tmp_path / "pi.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        schema.load(str(path))
    for message in messages:
        assert message in str(error.value)


def test_a_host_is_enough(tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "pi.yaml").write_text("transport: ssh\nhost: pi@raspberrypi\n")
    pi = schema.load("pi", tmp_path)
    assert (pi.name, pi.host, pi.description) == ("pi", "pi@raspberrypi", "reached by ssh, pi@raspberrypi")
    assert targets.weight_bits_for([pi]) == 7, "its instruction sets are not known"
    assert targets.onnx_activations_for([pi]) == "uint8"


def test_a_name_is_the_stem_of_a_stage_and_of_files(tmp_path):
    (tmp_path / "a b;c.yaml").write_text("transport: host\n")
    with pytest.raises(RecipeError, match="name"):
        schema.load(str(tmp_path / "a b;c.yaml"))


def test_the_users_devices_come_before_what_ships(tmp_path):
    recipes, here = tmp_path / "recipes", tmp_path / "here"
    for folder, name in ((recipes, "pi4"), (here, "pi4"), (here, "host"), (here, "phone")):
        (folder / "devices").mkdir(parents=True, exist_ok=True)
        (folder / "devices" / f"{name}.yaml").write_text(f"transport: host\ndescription: {folder.name}\n")
    found = {name: schema.load(name, recipes, here).description for name in ("pi4", "host", "phone")}
    assert found == {"pi4": "recipes", "host": "here", "phone": "here"}
    assert schema.load("host").description == "The machine that runs edgekd"
    assert schema.load(str(here / "devices" / "pi4.yaml")).description == "here"
    assert set(resources.devices([recipes, here])) >= {"pi4", "host", "phone"}
    with pytest.raises(UsageError, match=r"no device called 'phones'.*\n.*did you mean phone\?"):
        schema.load("phones", recipes, here)
    with pytest.raises(UsageError, match=r"did you mean .*devices/pi4.yaml"):
        schema.load(str(here / "devices" / "pi5.yaml"))


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


def test_openvino_has_zero_points_in_biases_only_where_every_target_is_known_to_be_x86():
    x86, arm = target("x86_64", "avx2"), target("aarch64", "asimd")
    bare = Device.model_validate({"edgekd": 1, "name": "pi", "description": "a board", "transport": "ssh", "host": "pi"})
    assert targets.openvino_zero_points_for([x86]) == "biases"
    for devices in ([arm], [x86, arm], [x86, bare]):
        assert targets.openvino_zero_points_for(devices) == "activations"


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


def test_what_a_runtime_lacks_on_a_device_is_read_from_its_file(tmp_path):
    path = tmp_path / "npu.yaml"
    path.write_text("transport: host\nemulated: true\npair_sums: 32\nlacks: {tflite: [gelu, silu]}\nio: int8\n")
    found = schema.load(str(path))
    assert (found.lacks, found.io, found.sums()) == ({"tflite": ("gelu", "silu")}, "int8", 32)
    path.write_text(path.read_text().replace("gelu", "swish"))
    with pytest.raises(RecipeError, match=r"npu.yaml:4:18: lacks.tflite\[0\]: must be hardswish"):
        schema.load(str(path))


def test_this_machine_is_measured_alone_and_a_board_once_at_a_time(tmp_path):
    texts = {
        "here": "transport: host\n", "pi4": "transport: ssh\nhost: a\n", "pi4b": "transport: ssh\nhost: a\nthreads: 2\n",
        "pi5": "transport: ssh\nhost: b\n", "phone": "transport: adb\n",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    recipe = Recipe.model_validate({
        "edgekd": 1, "data": {"source": "fashion-mnist-mini"}, "student": {"model": "edgekd:resnet10"}, "export": ["onnx"],
        "profile": {"devices": [str(tmp_path / f"{name}.yaml") for name in texts]},
    })  # fmt: skip
    assert targets.together(recipe, ["here", "pi4", "pi5"]) == ["here"]
    assert targets.together(recipe, ["pi4", "here", "pi4b", "pi5", "phone"]) == ["pi4", "pi5", "phone"]
    assert targets.together(recipe, ["pi4b"]) == ["pi4b"]
