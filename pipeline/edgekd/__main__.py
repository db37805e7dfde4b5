"""``python -m edgekd``."""

import sys
from pathlib import Path

if __name__ == "__main__" and not sys.flags.safe_path and sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd():
    del sys.path[0]  # a signal.py or types.py in the working folder is not Python's; where PYTHONPATH names it, it stays


def main() -> None:
    """Run the command line; Ctrl-C while its modules are still being imported has words and an exit code, too."""
    try:
        from edgekd.cli import main as run

        run()
    except KeyboardInterrupt:
        if "--json" in sys.argv:
            print('{"ok": false, "exit_code": 130, "error": "interrupted", "hint": "", "problems": []}')
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":  # a spawned training process imports this file under another name
    main()
