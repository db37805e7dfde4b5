"""The report: a run's findings as one HTML file, Markdown, a model card and a few lines in the terminal.

Everything is made from :class:`edgekd.results.run.RunResult` alone: ``view`` turns it into a page of finished
text (``page``), and ``html``, ``markdown`` and ``terminal`` only lay that page out.
"""
