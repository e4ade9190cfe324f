from vitlab import evaluation as evaluation
from vitlab import inspection as inspection
from vitlab import models as models
from vitlab import recipes as recipes
from vitlab.estimator import ViTClassifier as ViTClassifier
from vitlab.models import create_model as create_model
from vitlab.models import list_models as list_models
from vitlab.recipes.library import load_recipe as load_recipe
from vitlab.recipes.schema import Recipe as Recipe
from vitlab.runner import Run as Run
from vitlab.runner import run as run
from vitlab.weights import load_model as load_model
from vitlab.weights import save_model as save_model

__all__ = [
    "Recipe",
    "Run",
    "ViTClassifier",
    "create_model",
    "evaluation",
    "inspection",
    "list_models",
    "load_model",
    "load_recipe",
    "models",
    "recipes",
    "run",
    "save_model",
]
