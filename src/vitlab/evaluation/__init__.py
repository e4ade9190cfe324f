"""Measuring a model: accuracy, few-shot accuracy, VTAB, speed."""

from vitlab.evaluation import accuracy, fewshot

__all__ = ["accuracy", "fewshot"]
