"""The report: a run's results as HTML, Markdown, a model card and terminal text.

Everything is made from :class:`edgekd.results.run.RunResult` alone: ``view`` turns it into a page of finished
text (``page``), and ``html``, ``markdown`` and ``terminal`` only lay that page out.
"""
