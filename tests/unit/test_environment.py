from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import version

from edgekd import environment


def test_environment_says_what_decides_results() -> None:
    found = environment.describe()
    assert found["python"] == platform.python_version()
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0.1
    assert found["cpu"]
    assert found["os"]
    assert found["packages"]["torch"] == version("torch")
    assert json.loads(json.dumps(found)) == found


def test_environment_does_not_import_torch() -> None:
    script = "import sys; from edgekd import environment; environment.describe(); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"


def test_a_package_that_is_not_installed_is_left_out() -> None:
    environment_packages = environment.describe()["packages"]
    assert all(environment_packages.values())
