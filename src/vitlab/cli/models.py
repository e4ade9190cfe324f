"""`vitlab models`: the models of the paper by name."""

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.recipes import cost, zoo
from vitlab.results import ResultTable

app = options.new_app()


@app.command()
def models(as_json: options.JsonOption = False) -> None:
    """Every named model at 224 pixels: parameters with a 1000-way head, tokens, and FLOPs of one image."""
    rows = []
    for name in zoo.names():
        config = zoo.get(name)
        tokens = config.tokens if isinstance(config, zoo.ViTConfig) else None
        rows.append([name, f"{cost.parameters(config) / 1e6:,.1f} M", tokens, f"{cost.flops(config) / 1e9:,.1f} G"])
    notes = ["ViT names take any patch that divides the image: ViT-Ti/4 at 28 pixels is a model too."]
    show(ResultTable("Models", ["name", "parameters", "tokens", "FLOPs"], rows, notes=notes), as_json=as_json)
