"""What people read is plain, standard English in the field's own terms: odd words and phrases do not come back.

Checked are all strings of the source (docstrings included), its templates and pages, and the documents. Names in
backticks are left out, so that a changelog can say what was renamed.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "vitlab"
PYTHON = sorted(SOURCE.rglob("*.py"))
PAGES = sorted(path for path in SOURCE.rglob("*") if path.suffix in (".jinja", ".js", ".html", ".css"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = [*PYTHON, *PAGES, *DOCUMENTS]

COUNTED = (
    "one|once|images|updates|steps|samples|bytes|bits|seconds|operations|tokens|times|epochs|rows|lines|files|runs"
)
UNITS = (
    "processor|batch|step|image|class|second|minute|hour|epoch|device|row|layer|head|process|thread|file|shard|pixel"
)
# What must not be said, and what to say instead.
INSTEAD = {
    r"rightly": "correctly",
    r"taken for what": "confusion matrix",
    r"(is|are) not here": "is not available",
    r"of an hour of the device": "price per device-hour",
    r"get (it|them) again": "download it again",
    r"anew": "again",
    r"(told|tells)(?!( \w+){0,2} apart)": "says, shows, reports",
    r"mend|mends|mended": "fix",
    r"agreement": "rank sync",
    r"judg(e|es|ed|ing)": "validate, evaluate, compare",
    r"hits": "correct",
    r"cutters?": "microbatches",
    r"light images?": "in-memory images",
    r"sinks?": "loggers",
    r"lanes?": "thread replicas",
    r"near-copies|copies of (test|training|other)|copy of a (test|training)": "duplicates",
    r"(train|training|test|dev|dev-train|validation) parts?": "split",
    r"(?-i:none) (where|if|unless|takes|means|lists|leaves|gives|shows|without|before)": "None, empty, not available",
    r"whole or not at all": "completely or not at all",
    rf"({COUNTED}) an? ({UNITS})": "per",
    r"on its way": "in progress",
}  # fmt: skip
PHRASES = re.compile("|".join(rf"(?<![\w.-])(?:{phrase})(?![\w-])" for phrase in INSTEAD), re.IGNORECASE)
# Legitimate uses: (file, what is found there, in lower case).
ALLOWED: set[tuple[str, str]] = set()

# Names of classes, functions and modules that say nothing to people who know PyTorch, timm or scikit-learn.
VAGUE = {
    "Part", "Plan", "Found", "Row", "Piece", "Cutter", "Meter", "Moment", "agreement", "judging", "parts", "spread",
    "light", "gate", "looking", "copies", "meter", "sinks", "together", "words", "sums", "hits",
}  # fmt: skip


def _strings(tree: ast.AST) -> list[str]:
    """All strings; of those with {values} in them, the text around the values."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            found.append(node.value)
    return found


def texts_of(path: Path) -> list[str]:
    """What a person may read of a file, with plain spaces and without names in backticks."""
    text = path.read_text(encoding="utf-8")
    strings = _strings(ast.parse(text)) if path.suffix == ".py" else [text]
    return [" ".join(re.sub(r"`+[^`\n]+`+", "``", string).split()) for string in strings]


def phrases_in(text: str) -> list[str]:
    """The refused words and phrases of a text."""
    return [match[0] for match in PHRASES.finditer(text)]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_people_read_plain_english(path):
    name = str(path.relative_to(ROOT))
    found = [phrase for text in texts_of(path) for phrase in phrases_in(text) if (name, phrase.lower()) not in ALLOWED]
    advice = {
        phrase: next(say for said, say in INSTEAD.items() if re.fullmatch(said, phrase, re.I)) for phrase in found
    }
    assert not found, f"{name}: say it otherwise: {advice}"


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(SOURCE)))
def test_names_say_what_they_name(path):
    defined = [path.stem, path.parent.name]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            defined.append(node.name)
    assert not {name.lstrip("_") for name in defined} & VAGUE


def test_what_is_allowed_is_still_there():
    """An entry of the allow-list that nothing needs any more goes."""
    used = {
        (str(path.relative_to(ROOT)), phrase.lower())
        for path in TEXTS
        for text in texts_of(path)
        for phrase in phrases_in(text)
    }
    assert used >= ALLOWED


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("83.5 % are named rightly; the photo is not here", ["rightly", "is not here"]),
        ("the first image is told; what tells two classes apart; cats are told apart", ["told"]),
        ("none takes one a processor, at 10 images a second", ["none takes", "one a processor", "images a second"]),
        ("written whole or not at all, completely or not at all", ["whole or not at all"]),
        (
            "None where unknown; none of its images; none, tensorboard or wandb; images per second; unmended",
            [],
        ),
    ],
)
def test_the_phrases_find_what_they_should(text, found):
    assert phrases_in(text) == found
