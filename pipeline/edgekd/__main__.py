"""``python -m edgekd``."""

from edgekd.cli import main

if __name__ == "__main__":  # a spawned training process imports this file under another name
    main()
