"""Sections of a report: each is a function from a run to blocks of the page."""
