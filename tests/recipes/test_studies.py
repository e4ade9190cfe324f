"""Studies are values: every run that they ask for is a valid recipe, and they differ in what they are about."""

import pytest

from vitlab.errors import UserError
from vitlab.recipes import studies, zoo
from vitlab.recipes.schema import from_toml, to_toml
from vitlab.recipes.studies import Study, Sweep, all_studies

STUDIES = all_studies()


def test_names_are_told_apart():
    names = [study.name for study in STUDIES]
    assert len(set(names)) == len(names)
    assert names == list(studies.STUDIES)
    assert all(studies.find(name).name == name for name in names)
    with pytest.raises(UserError, match="did you mean table8"):
        studies.find("tabel8")


@pytest.mark.parametrize("name", studies.STUDIES)
def test_finding_a_study_makes_no_other(name, monkeypatch):
    made = []
    make = Study.__init__

    def noting(study, name, *rest, **named):
        made.append(name)
        make(study, name, *rest, **named)

    monkeypatch.setattr(Study, "__init__", noting)
    studies.find(name)
    with pytest.raises(UserError, match="unknown study"):
        studies.find("no such study")
    assert made == [name]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_run_of_a_study_is_a_valid_recipe_of_its_own(study):
    assert len({row.name for row in study.rows}) == len(study.rows)
    runs = []
    for row in study.rows:
        recipe = row.sweep.recipe
        size = {} if recipe.model.image_size is None else {"image_size": recipe.model.image_size}
        assert zoo.configure(recipe.model.name, {**recipe.model.options, **size})
        finals = [row.sweep.final(None, seed) for seed in row.sweep.seeds]
        trials = [row.sweep.trial(rate) for rate in row.sweep.learning_rates]
        runs += [*finals, *trials]
    assert all(from_toml(to_toml(run), "there") == run for run in runs)
    assert len({to_toml(run) for run in runs}) == len(runs)


def test_a_sweep_holds_out_a_part_for_trials_and_nothing_for_what_counts():
    recipe = studies.find("table4/pets").rows[0].sweep.recipe
    sweep = Sweep(recipe, (0.1, 1e-05), seeds=(4, 5), dev_share=0.1)
    trial = sweep.trial(1e-05)
    assert (trial.optimizer.learning_rate, trial.seed, trial.validation.share) == (1e-05, 4, 0.1)
    final = sweep.final(0.1, 5)
    assert (final.optimizer.learning_rate, final.seed, final.validation.share) == (0.1, 5, 0)
    assert sweep.final(None, 5).optimizer.learning_rate == recipe.optimizer.learning_rate


@pytest.mark.parametrize(
    ("name", "rates", "share"),
    [
        ("table4/imagenet", (0.003, 0.01, 0.03, 0.06), 0.01),
        ("table4/cifar10", (0.001, 0.003, 0.01, 0.03), 0.02),
        ("table4/cifar100", (0.001, 0.003, 0.01, 0.03), 0.02),
        ("table4/pets", (0.001, 0.003, 0.01, 0.03), 0.1),
        ("table4/flowers", (0.001, 0.003, 0.01, 0.03), 0.1),
        ("augreg/to-imagenet", (0.01, 0.03), 0.1),
        ("augreg/to-pets-500", (0.001, 0.003, 0.01), 0.1),
    ],
)
def test_fine_tuning_tries_the_papers_rates(name, rates, share):
    sweep = studies.find(name).rows[0].sweep
    assert (sweep.learning_rates, sweep.dev_share, sweep.seeds) == (rates, share, (0, 1, 2))


def test_the_ablations_have_the_papers_rows():
    assert len(studies.find("table8").rows) == 8
    assert [row.published for row in studies.find("table7").rows] == ["77.54", "78.24", "84.97", "84.37"]
    assert studies.find("table7").rows[1].sweep.recipe.optimizer.kind == "sgd"
    shares = [row.sweep.recipe.data.share for row in studies.find("fig4").rows[:4]]
    assert [round(303 * share) for share in shares] == [9, 30, 90, 303]
    assert all(row.sweep.recipe.early_stopping.patience for row in studies.find("fig4").rows)
    gap = [(row.sweep.recipe.model.options.get("head"), row.sweep.recipe.optimizer.learning_rate)
           for row in studies.find("fig9").rows]  # fmt: skip
    assert gap == [(None, 8e-4), ("gap", 8e-4), ("gap", 3e-4)]
    vtab = studies.find("vtab")
    assert vtab.averaged
    assert sum(float(row.published) for row in vtab.rows) / 19 == pytest.approx(72.7, abs=0.05)


def test_fig_8_changes_one_dimension_at_a_time():
    base, *others = (row.sweep.recipe.model.options for row in studies.find("fig8").rows)
    assert (base["layers"], base["hidden"], base["mlp"]) == (8, 1024, 2048)
    for row, options in zip(studies.find("fig8").rows[1:], others, strict=True):
        changed = {key for key in options if options[key] != base.get(key)} - {"representation"}
        assert len(changed) == 1 or row.name.startswith("all")
