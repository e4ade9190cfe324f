"""WHAT to run: frozen, validated values. Nothing here imports torch."""

from vitlab.recipes import cost, zoo

__all__ = ["cost", "zoo"]
