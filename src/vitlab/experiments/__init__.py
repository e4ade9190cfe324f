"""Experiments of many runs: VTAB, studies, and the demo."""
