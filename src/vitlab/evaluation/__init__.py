"""Measuring a model: accuracy and few-shot accuracy."""

from vitlab.evaluation import accuracy, fewshot

__all__ = ["accuracy", "fewshot"]
