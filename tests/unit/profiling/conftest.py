import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def nets(tmp_path_factory):
    """Folder with float.onnx, int8.onnx, float.xml, float.tflite and cut.tflite: real networks, made once."""
    folder = tmp_path_factory.mktemp("nets")
    script = Path(__file__).with_name("make_models.py")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder
