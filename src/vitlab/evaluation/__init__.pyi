from vitlab.evaluation import accuracy as accuracy
from vitlab.evaluation import fewshot as fewshot

__all__ = ["accuracy", "fewshot"]
