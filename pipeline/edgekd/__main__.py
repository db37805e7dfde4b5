"""``python -m edgekd``."""

import sys
from pathlib import Path

if __name__ == "__main__" and not sys.flags.safe_path and sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd():
    del sys.path[0]  # a signal.py or types.py in the working folder is not Python's; where PYTHONPATH names it, it stays

from edgekd.cli import main

if __name__ == "__main__":  # a spawned training process imports this file under another name
    main()
