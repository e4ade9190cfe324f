from vitlab.weights.load import load_model as load_model
from vitlab.weights.save import save_model as save_model
