import pytest

from gridsearch.errors import PluginError, SpecError
from gridsearch.records import trial_key
from gridsearch.spec import Grid, StudySpec, expand_study


def expand(resolver, grid=None, **more):
    return expand_study(StudySpec(grid=grid or Grid(), **more), resolver)


def test_every_point_comes_with_every_seed_innermost(resolver):
    spec = StudySpec(grid=Grid(lr=[0.1, 0.2], batch=[10, 20]), seeds=2)
    drafts = expand_study(spec, resolver).drafts
    assert [(d.settings.lr, d.settings.batch, d.seed) for d in drafts] == [
        (lr, batch, seed) for lr in (0.1, 0.2) for batch in (10, 20) for seed in (0, 1)
    ]
    assert all(d.axes == ("lr", "batch") and d.inactive == () for d in drafts)
    assert all(d.key == trial_key(d.settings, d.seed) for d in drafts)


def test_settings_are_complete_with_what_the_plug_ins_say(resolver):
    (draft,) = expand_study(
        StudySpec(
            dataset="whatever",
            model="nets/mlp",
            val=0.2,
            subset=50,
            recipe={"model.hidden": 32, "epochs": 3, "data.size": 8},
        ),
        resolver,
    ).drafts
    settings = draft.settings
    assert (settings.dataset, settings.data_options, len(settings.data_fingerprint)) == (
        "made-up",
        {"size": 8},
        64,
    )
    assert (settings.model, settings.model_source) == ("mlp", "a" * 64)
    assert settings.model_options == {"act": None, "bias": True, "hidden": 32, "slope": 1}
    assert (settings.val, settings.subset, settings.epochs) == (0.2, 50, 3)


def test_an_option_given_as_its_default_is_the_same_trial(resolver):
    keys = {
        expand_study(StudySpec(model="mlp", recipe=recipe), resolver).drafts[0].key
        for recipe in (
            {},
            {"model.hidden": 64},
            {"model.slope": 1},
            {"model.slope": 1.0},
            {"model.bias": True},
        )
    }
    assert len(keys) == 1


def test_an_axis_wins_over_the_recipe(resolver):
    drafts = expand(
        resolver, Grid({"model": ["mlp"], "model.hidden": [8]}), recipe={"model.hidden": 16}
    ).drafts
    assert [(d.settings.model, d.settings.model_options["hidden"]) for d in drafts] == [("mlp", 8)]


def test_an_option_can_belong_to_one_of_the_gridded_models(resolver):
    grid = Grid({"model": ["lenet", "mlp"], "model.hidden": [8, 16]}, when="model.hidden: model=mlp")
    drafts = expand(resolver, grid).drafts
    assert [(d.settings.model, d.settings.get("model.hidden"), d.inactive) for d in drafts] == [
        ("lenet", None, ("model.hidden",)),
        ("mlp", 8, ()),
        ("mlp", 16, ()),
    ]


def test_what_plug_ins_refuse_is_told_all_at_once(resolver):
    with pytest.raises(SpecError) as caught:
        expand(
            resolver,
            Grid(
                {"model": ["lenet", "mpl", "mlp"], "model.hiden": [1, 2]}, when="model.hiden: model=lenet,mlp"
            ),
        )
    assert caught.value.problems == (
        "model 'lenet' takes no option 'hiden'; known: width",
        "unknown model 'mpl'; did you mean 'mlp'?",
        "model 'mlp' takes no option 'hiden'; did you mean 'hidden'?",
    )


def test_a_single_refusal_keeps_its_class_and_hint(resolver):
    with pytest.raises(PluginError) as caught:
        expand(resolver, Grid(lr=[0.1, 0.2]), model="lenett")
    assert caught.value.hint == "see gridsearch models list"


def test_the_resolver_is_asked_once_per_name_and_options(resolver):
    grid = Grid({"lr": [0.1, 0.2], "model": ["lenet", "mlp"], "data.size": [8, 16]})
    assert len(expand(resolver, grid).drafts) == 8
    assert set(resolver.asked.values()) == {1}
    assert len(resolver.asked) == 4


def test_options_that_python_holds_equal_are_asked_apart(resolver):
    drafts = expand(resolver, Grid({"model.bias": [1, True]}), model="mlp").drafts
    assert [type(d.settings.model_options["bias"]) for d in drafts] == [int, bool]
    assert drafts[0].key != drafts[1].key


def test_settings_that_cannot_matter_are_set_to_their_defaults(resolver):
    expansion = expand(resolver, Grid(optimizer=["adam", "sgd"], momentum=[0, 0.9], nesterov=[False, True]))
    assert [
        (d.settings.optimizer, d.settings.momentum, d.settings.nesterov, d.inactive) for d in expansion.drafts
    ] == [
        ("adam", 0.0, False, ("momentum", "nesterov")),
        ("sgd", 0.0, False, ("nesterov",)),
        ("sgd", 0.9, False, ()),
        ("sgd", 0.9, True, ()),
    ]
    assert (expansion.points, expansion.dropped) == (4, 4)
    assert expansion.warnings == ("4 of 8 points repeat others: they differ only in settings without effect",)


def test_an_axis_without_effect_is_told(resolver):
    expansion = expand(resolver, Grid(momentum=[0, 0.9]))
    assert expansion.points == 1
    assert expansion.warnings == (
        "momentum has no effect at any point (optimizer=adam)",
        "1 of 2 points repeats another: it differs only in settings without effect",
    )


def test_how_much_randaugment_there_is_matters_with_randaugment_alone(resolver):
    grid = Grid(magnitude=[5, 9], augment=["flip", "flip+randaugment"])
    assert [d.settings.magnitude for d in expand(resolver, grid).drafts] == [9, 5, 9]
    assert expand(resolver, Grid(operations=[1, 2])).warnings[0] == (
        "operations has no effect at any point (augment=none)"
    )
    told = "magnitude=5 of the recipe has no effect at any point"
    assert told in expand(resolver, recipe={"magnitude": 5}).warnings


def test_an_exponent_without_a_focal_loss_is_told(resolver):
    expansion = expand(resolver, Grid(focal_gamma=[1, 2]))
    assert expansion.points == 1
    assert expansion.warnings[0] == "focal_gamma has no effect at any point (loss=cross_entropy)"
    expansion = expand(resolver, Grid(loss=["cross_entropy", "focal"], focal_gamma=[1, 2]))
    assert [(d.settings.loss, d.settings.focal_gamma) for d in expansion.drafts] == [
        ("cross_entropy", 2.0),
        ("focal", 1.0),
        ("focal", 2.0),
    ]


def test_a_patience_that_no_trial_can_lose_is_none(resolver):
    """Even where the first epoch is the best, such a trial ends with its last."""
    expansion = expand(resolver, Grid(epochs=[3, 10], patience=[None, 2, 9]))
    assert [(d.settings.epochs, d.settings.patience) for d in expansion.drafts] == [
        (3, None),
        (10, None),
        (10, 2),
    ]
    expansion = expand(resolver, Grid(patience=[9, 20]), recipe={"epochs": 10})
    assert expansion.warnings[0] == "patience has no effect at any point (epochs=10)"
    assert expand(resolver, recipe={"patience": 2}, val=0.0).warnings == (
        "patience uses the train accuracy, because nothing is held out (val=0)",
    )


def test_an_axis_whose_condition_never_holds_is_told(resolver):
    grid = Grid(momentum=[0, 0.9], when="momentum: optimizer=sgd")
    expansion = expand(resolver, grid)
    assert (expansion.points, expansion.dropped) == (1, 0)
    assert expansion.warnings == ("momentum exists at no point: 'momentum: optimizer=sgd' never holds",)
    assert expand(resolver, grid, recipe={"optimizer": "sgd"}).points == 2


def test_a_setting_of_the_recipe_without_effect_is_told(resolver):
    assert expand(resolver, recipe={"momentum": 0.9}).warnings == (
        "momentum=0.9 of the recipe has no effect at any point",
    )
    assert expand(resolver, recipe={"focal_gamma": 3}).warnings == (
        "focal_gamma=3 of the recipe has no effect at any point",
    )
    assert expand(resolver, recipe={"focal_gamma": 3, "loss": "focal"}).warnings == ()
    assert expand(resolver, Grid(optimizer=["adam", "sgd"]), recipe={"momentum": 0.9}).warnings == ()


def test_averaging_that_the_ranking_cannot_see_is_told(resolver):
    (told,) = expand(resolver, Grid(ema=[0, 0.9]), val=0.0).warnings
    assert told.startswith("ema does not move this ranking: nothing is held out (val=0)")
    assert expand(resolver, Grid(ema=[0, 0.9])).warnings == ()
    assert expand(resolver, Grid(lr=[0.1, 0.2]), val=0.0, recipe={"ema": 0.9}).warnings == ()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sampling", ["none", "balanced"]),
        ("augment", ["none", "flip"]),
        ("mixup", [0, 0.2]),
        ("cutmix", [0, 1]),
    ],
)
def test_an_axis_that_the_ranking_itself_depends_on_is_told(resolver, name, values):
    (told,) = expand(resolver, Grid({name: values}), val=0.0).warnings
    assert told.startswith(f"{name} decides which images the train accuracy is of")
    assert expand(resolver, Grid({name: values})).warnings == ()


def test_a_condition_may_ask_for_the_dataset_and_the_model(resolver):
    grid = Grid(lr=[0.1, 0.2], epochs=[1, 2], when=["lr: dataset=mnist", "epochs: model=lenet"])
    assert {d.inactive for d in expand(resolver, grid, dataset="mnist").drafts} == {()}
    assert {d.inactive for d in expand(resolver, grid, model="mlp").drafts} == {("lr", "epochs")}


def test_excluded_points_are_counted(resolver):
    expansion = expand(resolver, Grid(lr=[0.1, 0.2], batch=[1, 2], exclude="lr=.1 batch=1"), seeds=3)
    assert (expansion.points, expansion.excluded, len(expansion.drafts)) == (3, 1, 9)


def test_a_grid_of_which_nothing_is_left_is_an_error(resolver):
    with pytest.raises(SpecError, match="the exclusions leave none of the 2 points"):
        expand(resolver, Grid(lr=[0.1, 0.2], exclude="lr=.1,.2"))


def test_too_many_trials_are_refused_before_they_are_made(resolver):
    with pytest.raises(
        SpecError, match="1,000 points with 10,000 seeds are 10,000,000 trials, and at most 3,000,000"
    ):
        expand(resolver, Grid(batch="1..1000:1"), seeds=10_000)
    assert not resolver.asked


def test_ten_thousand_points_with_three_seeds_are_all_there(resolver):
    drafts = expand_study(
        StudySpec(grid=Grid(lr="1e-4..1e-1:100log", batch="1..100:1"), seeds=3), resolver
    ).drafts
    assert len({draft.key for draft in drafts}) == 30_000
    assert all(draft.key == trial_key(draft.settings, draft.seed) for draft in drafts[::997])
