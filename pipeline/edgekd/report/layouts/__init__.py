"""Layouts of a report: HTML, Markdown, the terminal, and the model card."""
