"""The program that runs on a device: it measures one model file in one runtime.

It stands alone (standard library, numpy and the one runtime; Python 3.8 or later). ``agents/python.py`` packs this folder
into one file, ``agent.pyz``, which is sent to the device and started anew for every artifact; on the host too.

It reads one JSON object a line on stdin, such as ``{"command": "block", "runs": 30, "ms": 250}``, and answers with one
JSON object a line on stdout; ``{"error": "..."}`` is a refusal. Times are milliseconds, memory is MiB (2**20 bytes).
``facts`` and ``runtimes`` say what the device is and what works on it: each runtime is tried in a process of its own
(``agent.pyz probe``).

Commands in the order a session gives them: ``start``, ``warmup``, ``state``, ``block`` (many), ``state``, ``memory``,
``effective``, ``stop``. ``effective`` comes last because asking a runtime what it did costs memory.
"""
