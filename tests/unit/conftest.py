from __future__ import annotations

import os

# openvino reports home, from a fork, when it is imported and when it converts; in continuous integration it does not.
os.environ.setdefault("CI", "true")
