"""`python -m vitlab` is `vitlab`, which is what torchrun starts."""

from vitlab.cli.main import entry

if __name__ == "__main__":
    entry()
