import sys

import numpy as np
import pandas as pd
import pytest
from report_contract import is_drawn, words_of
from sklearn.metrics import roc_auc_score

from cnnsvm.report.plots import (
    confusion_matrix_plot,
    floats,
    group_plot,
    new_figure,
    precision_recall_plot,
    reliability_plot,
    roc_plot,
    training_plot,
    wrap_name,
)
from cnnsvm.report.render import to_svg

PLOTS = [confusion_matrix_plot, roc_plot, precision_recall_plot, reliability_plot]


@pytest.mark.parametrize("plot", PLOTS)
def test_predictions_are_drawn(plot, predictions):
    assert is_drawn(plot(predictions))


@pytest.mark.parametrize("plot", PLOTS)
def test_one_class_alone_is_drawn_or_explained(plot, predictions):
    figure = plot(predictions[predictions["label"] == 1])
    assert is_drawn(figure)
    if plot in (roc_plot, precision_recall_plot):
        assert "needs both" in words_of(figure).replace("\n", " ")


def test_the_confusion_matrix_counts():
    table = pd.DataFrame({"label": [0, 0, 0, 1, 1, 1, 1], "prediction": [0, 0, 1, 0, 1, 1, 1]})
    said = words_of(confusion_matrix_plot(table))
    for cell in ("2\n67%\nreal", "1\n33%\nfalse alarm", "1\n25%\nmiss", "3\n75%\nfake"):
        assert cell in said


def test_the_roc_legend_gives_the_areas(predictions):
    said = words_of(roc_plot(predictions))
    whole = roc_auc_score(predictions["label"], predictions["probability"])
    fold = predictions[predictions["fold"] == 1]
    assert f"all folds (area {whole:.3f})" in said
    assert f"fold 1 ({roc_auc_score(fold['label'], fold['probability']):.3f})" in said


def test_many_folds_do_not_crowd_the_legend(predictions):
    many = pd.concat([predictions.assign(fold=fold) for fold in range(9)])
    (axes,) = roc_plot(many).axes
    assert len(axes.get_lines()) == 11
    assert len(axes.get_legend().get_texts()) == 2


def test_groups_show_counts_and_undefined_intervals_do_not_hurt(result):
    groups = result["by_engine"]
    groups["opencv"] = {"n_fakes": 3, "metrics": {"recall": {"value": 1.0, "low": None}}}
    figure = group_plot(groups, "By engine")
    assert is_drawn(figure)
    assert "(12 fakes)" in words_of(figure)
    assert "(3 fakes)" in words_of(figure)


def test_the_kept_epoch_is_starred(curves):
    figure = training_plot([*curves, {"fold": 1, "best_epoch": None, "history": [{"epoch": 1}]}])
    stars = [line for ax in figure.axes for line in ax.get_lines() if line.get_marker() == "*"]
    kept = [line.get_xydata().tolist() for line in stars if len(line.get_xdata())]
    assert kept == [[[2, 0.6]], [[2, 0.8]]]
    assert is_drawn(figure)


def test_names_of_many_curves_fit_and_no_two_look_alike():
    history = [{"epoch": 1, "train_loss": 0.5, "valid_loss": 0.5}]
    names = [f"a backbone of a long name {number}" for number in range(9)]
    figure = training_plot([{"name": name, "best_epoch": 1, "history": history} for name in names])
    assert is_drawn(figure)
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.width
    lines = figure.legends[0].get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(names)


def test_a_figure_is_the_same_bytes_twice_and_leaves_pyplot_alone(predictions):
    assert to_svg(roc_plot(predictions), "") == to_svg(roc_plot(predictions), "")
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def test_floats_are_nan_where_something_is_missing():
    np.testing.assert_equal(
        floats([{"a": 1}, {"a": None}, {}, {"a": "x"}], "a"), [1, np.nan, np.nan, np.nan]
    )


def test_names_break_after_punctuation_and_lose_nothing():
    name = "diffusion:some-community/stable-diffusion-2-inpainting" + "x" * 30
    lines = wrap_name(name, 20).split("\n")
    assert max(map(len, lines)) <= 20
    assert "".join(lines) == name
    assert lines[:3] == ["diffusion:some-", "community/stable-", "diffusion-2-"]


def test_a_figure_has_the_axes_asked_for():
    _, axes = new_figure(rows=3)
    assert len(axes) == 3
