"""The drawings: what is measured seldom is drawn as what is measured always."""

from credibly.report.page.drawing import svg
from credibly.report.page.plots import history_plot


def test_a_line_joins_the_steps_at_which_held_out_rows_were_measured():
    gappy = {"step": [1.0, 2, 3, 4, 5, 6], "validation_loss": [None, 0.5, None, 0.4, None, 0.3]}
    measured = {"step": [2.0, 4, 6], "validation_loss": [0.5, 0.4, 0.3]}
    drawn = [svg(history_plot({"members/0": columns}, "validation_loss")) for columns in (gappy, measured)]
    assert drawn[0] == drawn[1]
    never = {"step": [1.0, 2], "validation_loss": [None, None]}
    assert svg(history_plot({"members/0": never}, "validation_loss")) != drawn[0]
