"""The page: whole in itself, escaped, with everything that is there and nothing of what is not."""

import base64
import hashlib
import html
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from report.small_runs import draw_figures, write_run, write_table
from vitlab.errors import UserError
from vitlab.report.page import cell, numeric_columns, write_report
from vitlab.results import ResultTable

VOID = {"meta", "img"}
EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """Tags with attributes, in order; checks that they close as they open."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def written(*folders, out):
    return write_report(list(folders), out).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(journey, tmp_path_factory):
    return written(journey, out=tmp_path_factory.mktemp("out") / "report.html")


def headings(text, level=2):
    return [html.unescape(found) for found in re.findall(rf"<h{level}>(.*?)</h{level}>", text)]


def test_nothing_is_loaded_and_nothing_runs(page):
    reader = Reader(page)
    names = {tag for tag, _ in reader.tags}
    assert names.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form", "audio", "video"})
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("style", "srcset", "background", "action", "data", "xlink:href", "poster"), (tag, name)
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            if name == "href":
                assert value.startswith("#")
    assert "url(" not in page
    assert "@import" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_policy_forbids_everything_but_this_style_and_these_pictures(page):
    policy = next(meta for meta in Reader(page).all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy["content"].split(";"))
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert page.index("Content-Security-Policy") < page.index("<title>")


def test_a_journey_is_told_in_order(page):
    assert headings(page, 1) == ["A journey in small"]
    assert headings(page) == ["Results", "Upstream", "Downstream", "Figures"]
    assert "From clothes to digits." in page
    order = [page.index(text) for text in ("96.9", "Few-shot on digits", ">Loss<", "Attention rollout")]
    assert order == sorted(order), "numbers, tables, curves, pictures"
    assert [link["href"] for link in Reader(page).all("a")] == [f"#section-{number}" for number in (1, 2, 3, 4)]
    assert {section["id"] for section in Reader(page).all("section")} == {
        f"section-{number}" for number in (1, 2, 3, 4)
    }


def test_everything_of_the_journey_is_there(page):
    texts = html.unescape(page)
    said = ["70,000", "Frozen features carry over.", "Mean and standard deviation", "53.1 ± 0.3", "12,000"]
    said += ["2,000 steps with batch size 64", "A small model, quickly.", 'source = "fashion-mnist"', "9f" * 32]
    for text in said:
        assert text in texts, text
    assert headings(page, 3).count("Loss") == 2
    assert headings(page, 3).count("Learning rate") == 2
    assert page.count("<polyline") == (2 + 2 + 1 + 1) + (1 + 1 + 1 + 1)
    assert "0.781" not in page, "numbers for programs are not shown"


def test_every_picture_has_its_size_words_and_caption(page, journey):
    entries = json.loads((journey / "figures" / "figures.json").read_text())
    shown = Reader(page).all("img")
    assert [image["alt"] for image in shown] == [entry["alt"] for entry in entries]
    for image, entry in zip(shown, entries, strict=True):
        data = base64.b64decode(image["src"].split(",")[1])
        assert data == (journey / "figures" / entry["file"]).read_bytes()
        assert (int(image["width"]), int(image["height"])) > (0, 0)
        assert html.escape(entry["caption"]) in page.replace("&#39;", "&#x27;")
    assert page.count("<figcaption>") == page.count("<figure")


def test_charts_have_words_for_those_who_do_not_see_them(page):
    charts = [svg for svg in Reader(page).all("svg") if svg.get("role") == "img"]
    assert len(charts) == 8
    assert all("steps:" in svg["aria-label"] for svg in charts)


def test_one_run_is_a_page_of_its_own(journey, tmp_path):
    text = written(journey / "upstream", out=tmp_path / "deep" / "report.html")
    assert headings(text, 1) == ["A run"]
    assert headings(text) == ["Results", "Training", "How to reproduce it"]
    assert "Test top-1" in text, "without headline numbers the training's last are shown"
    assert ">85.0<" in text.replace(" ", "").replace("\n", "")


def test_several_folders_stand_one_after_the_other(journey, tmp_path):
    run = write_run(tmp_path / "later run", name="other")
    text = written(journey, run, out=tmp_path / "all.html")
    assert headings(text, 1) == ["Comparison of 2 results"]
    assert headings(text) == [
        "A journey in small",
        "A journey in small: Upstream",
        "A journey in small: Downstream",
        "Later run",
    ]


def test_tables_with_headlines_come_first_then_by_name(tmp_path):
    for name in ("c", "a", "b"):
        headline = [{"label": "l", "value": 1}] if name == "b" else []
        write_table(tmp_path / "results" / f"{name}.json", f"table {name}", ["x"], [[1]], headline=headline)
    text = written(tmp_path, out=tmp_path / "report.html")
    assert headings(text, 3) == ["table b", "table a", "table c"]


def test_where_weights_came_from_is_said_without_the_machines_folders(tmp_path):
    run = write_run(tmp_path / "run")
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text('init_from = "/home/someone/upstream"\n' + recipe)
    assert "from upstream · fashion-mnist · 200 steps with batch size 64" in written(run, out=tmp_path / "report.html")


def test_missing_pieces_are_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    for name in ("metrics.jsonl", "environment.json"):
        (run / name).unlink()
    shutil.rmtree(run / "results")
    text = written(run, out=tmp_path / "report.html")
    assert headings(text) == ["How to reproduce it"]
    assert "<nav" not in text, "a single section needs no links"
    assert 'class="tiles"' not in text
    shutil.rmtree(run)
    draw_figures(tmp_path / "pictures")
    assert headings(written(tmp_path / "pictures", out=tmp_path / "report.html")) == ["Figures"]


def test_a_journey_without_a_headline_shows_that_of_its_runs(tmp_path):
    write_run(tmp_path / "two-runs" / "b")
    write_run(tmp_path / "two-runs" / "a")
    text = written(tmp_path / "two-runs", out=tmp_path / "report.html")
    assert headings(text, 1) == ["Two-runs"]
    assert headings(text) == ["A", "B"]
    assert text.count('class="tiles"') == 1
    assert "A: Test top-1" in text


def test_pictures_that_were_not_drawn_are_said(tmp_path):
    entries = [{"title": "Embedding filters", "skipped": "a ResNet has none"}]
    (tmp_path / "figures.json").write_text(json.dumps(entries))
    assert "Not drawn: embedding filters (a ResNet has none)." in written(tmp_path, out=tmp_path / "r.html")


def test_names_from_outside_are_text_and_never_markup(tmp_path):
    journey = tmp_path / "journey"
    run = write_run(journey / "run <b>bold")
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace("fashion-mnist", "<script>alert(2)</script>"))
    (run / "environment.json").write_text(json.dumps({EVIL: EVIL}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, EVIL: 1.0}) + "\n")
    headline = [{"label": EVIL, "value": EVIL, "unit": EVIL}]
    write_table(
        journey / "results" / "t.json", EVIL, [EVIL], [[EVIL]], summary=EVIL, notes=[EVIL + "!"], headline=headline
    )
    (journey / "journey.json").write_text(json.dumps({"title": EVIL, "lead": EVIL}))
    draw_figures(journey / "figures", names=(EVIL, "</figcaption>"))
    figures = json.loads((journey / "figures" / "figures.json").read_text())
    figures = [entry | {"title": EVIL, "caption": EVIL, "alt": EVIL} for entry in figures]
    figures.append({"title": EVIL, "skipped": EVIL})
    (journey / "figures" / "figures.json").write_text(json.dumps(figures))
    text = written(journey, out=tmp_path / "report.html")
    reader = Reader(text)
    assert "<script" not in text
    assert reader.all("script") == []
    assert all(image["src"].startswith("data:") for image in reader.all("img"))
    assert all("onerror" not in attributes for _, attributes in reader.tags)
    assert reader.texts.count(EVIL) >= 10, "and what was written is shown as it was written"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("results/a.json", "{", r"a\.json is not valid JSON"),
        ("results/a.json", "[" * 100_000, r"a\.json is not valid JSON"),
        ("results/a.json", "1" * 5000, r"a\.json is not valid JSON"),
        ("results/a.json", b"\xff\xfe", r"a\.json is not UTF-8"),
        ("results/a.json", "[]", r"a\.json: "),
        ("results/a.json", '{"columns": []}', r"a\.json: title"),
        (
            "results/a.json",
            '{"title": "t", "columns": ["a", "b"], "rows": [["1"]]}',
            r"a\.json: row 1 has 1 cells for 2",
        ),
        ("results/a.json", '{"title": "t", "colums": ["a"]}', r"a\.json: colums"),
        ("environment.json", "[1]", r"environment\.json: "),
        ("metrics.jsonl", "{}\n", r"metrics\.jsonl, line 1"),
        ("recipe.toml", "steps = ", r"recipe\.toml is not valid TOML"),
        ("recipe.toml", "", r"recipe\.toml: "),
        ("recipe.toml", "stepps = 1", r"recipe\.toml: .*stepps"),
        ("journey.json", '{"title": "t", "order": ["nobody"]}', r"journey\.json: unknown run 'nobody'"),
        (
            "figures/figures.json",
            '[{"title": "t", "file": "no.png", "caption": "c", "alt": "a"}]',
            r"cannot read .*no\.png",
        ),
        (
            "figures/figures.json",
            '[{"title": "t", "file": "../recipe.toml", "caption": "c", "alt": "a"}]',
            "must be the name",
        ),
        ("figures/figures.json", '[{"title": "t", "file": "bad.png", "caption": "", "alt": "a"}]', "needs a caption"),
        ("figures/figures.json", '[{"title": "t"}]', "either a file or the reason"),
    ],
)
def test_a_malformed_file_is_named_in_one_line(tmp_path, file, content, said):
    run = write_run(tmp_path / "run")
    path = run / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said) as error:
        write_report([run], tmp_path / "report.html")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_only_pictures_are_embedded(tmp_path):
    entry = [{"title": "t", "file": "secret.png", "caption": "c", "alt": "a"}]
    (tmp_path / "figures.json").write_text(json.dumps(entry))
    for content in (b"root:x:0:0:root:/root:/bin/bash", b"\x89PNG\r\n\x1a\n"):
        (tmp_path / "secret.png").write_bytes(content)
        with pytest.raises(UserError, match=r"secret\.png is not a PNG"):
            write_report([tmp_path], tmp_path / "report.html")


def test_nothing_to_report_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains nothing to report"):
        write_report([tmp_path / "empty"], tmp_path / "report.html")
    with pytest.raises(UserError, match="is not a folder"):
        write_report([tmp_path / "nowhere"], tmp_path / "report.html")
    with pytest.raises(UserError, match="nothing to report"):
        write_report([], tmp_path / "report.html")
    run = write_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"cannot write .*choose another place"):
        write_report([run], run / "recipe.toml" / "report.html")


def test_the_same_folders_give_the_same_page(journey, tmp_path, page):
    assert written(journey, out=tmp_path / "again.html") == page


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), ("", "–"), (True, "yes"), (False, "no"), (1000, "1000"), (70_000, "70,000"), (0.123456, "0.1235"),
     (12345.6, "12,346"), ("as it is", "as it is"), ([1, {"a": None}], '[1, {"a": null}]'), (float("nan"), "nan")],
)  # fmt: skip
def test_cells_are_shown_plainly(value, text):
    assert cell(value) == text


def test_columns_of_numbers_are_set_right():
    rows = (("0", "81.3 %", "52.1 ± 3.0", "ViT", None), ("1", "–", "1.0e-3", "12", 3))
    assert numeric_columns(ResultTable("t", ("a", "b", "c", "d", "e"), rows)) == [False, True, True, False, True]
    assert numeric_columns(ResultTable("t", ("a", "b"))) == [False, False]
