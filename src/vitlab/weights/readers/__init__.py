"""Readers of files: what a file declares, checked against its size, and its arrays one at a time."""
