"""Saved predictions of any model: tables and arrays to the record, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from credibly.data import read_examples
from credibly.data.predictions import PredictionColumns, read_predictions, with_truth
from credibly.errors import CrediblyError, DataError
from credibly.records import UNKNOWN
from credibly.settings import DataSettings

PROBS = np.array([[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]]])
"""(2 members, 3 texts, 2 classes)."""
LABELS = ["no", "yes", "no"]


def rows(members=2, **more):
    return [
        {
            "id": f"t{text}", "label": LABELS[text], "probability.no": PROBS[member, text, 0],
            "probability.yes": PROBS[member, text, 1], **({"member": f"m{member}"} if members > 1 else {}),
            **{name: values[text] for name, values in more.items()},
        }
        for member in range(members) for text in range(3)
    ]  # fmt: skip


def written(folder, content, suffix):
    path, frame = folder / f"predictions.{suffix}", pd.DataFrame(content)
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("members", [1, 2])
def test_a_table_is_the_record_it_says(tmp_path, suffix, members):
    judged = read_predictions(written(tmp_path, rows(members), suffix))
    np.testing.assert_allclose(np.exp(judged.predictions.log_probs), PROBS[:members], atol=1e-6)
    assert judged.predictions.ids == judged.examples.ids == ("t0", "t1", "t2")
    assert judged.predictions.class_names == ("no", "yes")
    np.testing.assert_array_equal(judged.predictions.labels, [0, 1, 0])
    assert not judged.texts_known


def test_rows_of_members_may_come_in_any_order(tmp_path):
    order = [5, 0, 3, 1, 4, 2]
    judged = read_predictions(written(tmp_path, [rows()[place] for place in order], "csv"))
    assert judged.examples.ids == ("t2", "t0", "t1")
    np.testing.assert_allclose(np.exp(judged.predictions.log_probs), PROBS[[1, 0]][:, [2, 0, 1]], atol=1e-6)
    np.testing.assert_array_equal(judged.predictions.labels, [0, 0, 1])


def test_objects_of_json_groups_texts_and_other_column_names(tmp_path):
    content = [
        {"name": f"t{text}", "truth": LABELS[text], "part": "ab"[text % 2], "said": f"text {text}",
         "probabilities": {"no": PROBS[0, text, 0], "yes": PROBS[0, text, 1]}}
        for text in range(3)
    ]  # fmt: skip
    columns = PredictionColumns(label="truth", id="name", group="part", text=["said"])
    judged = read_predictions(written(tmp_path, content, "jsonl"), columns)
    assert judged.examples.groups == ("a", "b", "a")
    assert judged.examples.texts == ("text 0", "text 1", "text 2")
    assert judged.texts_known
    np.testing.assert_allclose(np.exp(judged.predictions.log_probs), PROBS[:1], atol=1e-6)


@pytest.mark.parametrize(
    "labels",
    [["0", "1", "0"], [0, 1, 0], [0.0, 1.0, 0.0], [False, True, False], ["False", "TRUE", "false"]],
)
def test_labels_may_be_text_integers_or_booleans(tmp_path, labels):
    names = ("0", "1") if str(labels[0]).lower() != "false" else ("false", "true")
    content = [
        {"id": str(text), "label": labels[text]}
        | {f"probability.{name}": PROBS[0, text, place] for place, name in enumerate(names)}
        for text in range(3)
    ]  # fmt: skip
    np.testing.assert_array_equal(
        read_predictions(written(tmp_path, content, "jsonl")).predictions.labels, [0, 1, 0]
    )


@pytest.mark.parametrize("members", [1, 2])
def test_arrays_are_the_record_they_say(tmp_path, members):
    file = tmp_path / "predictions.npz"
    probabilities = PROBS[0] if members == 1 else PROBS
    more = {"groups": ["a", "b", "a"], "class_names": ["no", "yes"]}
    np.savez(file, probabilities=probabilities, labels=[0, 1, 0], **more)
    judged = read_predictions(file)
    np.testing.assert_allclose(np.exp(judged.predictions.log_probs), PROBS[:members], atol=1e-6)
    assert judged.examples.groups == ("a", "b", "a")
    assert judged.examples.class_names == ("no", "yes")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"probabilities": PROBS}, "it lacks labels"),
        ({"probabilities": PROBS, "labels": [0, 1]}, r"labels"),
        ({"probabilities": PROBS, "labels": np.array(["a", "b", "c"])}, "class indices, got"),
        ({"probabilities": PROBS * 9 - 4, "labels": [0, 1, 0]}, "look like logits"),
        ({"probabilities": PROBS[0, 0], "labels": [0, 1]}, r"\(N, C\) or \(M, N, C\)"),
        ({"probabilities": PROBS, "labels": np.array([0, 1, None], dtype=object)}, "plain arrays"),
        ({"probabilities": np.where(PROBS == 0.9, np.nan, PROBS), "labels": [0, 1, 0]}, "NaN"),
        ({"probabilities": PROBS * 0.9, "labels": [0, 1, 0]}, "sum to one"),
        ({"probabilities": PROBS, "labels": [0, 1, 7]}, "label"),
        ({"probabilities": PROBS, "labels": [0, 1, np.inf]}, "class indices, got"),
        ({"probabilities": PROBS.astype(str), "labels": [0, 1, 0]}, "probabilities as numbers"),
        ({"probabilities": PROBS, "labels": [0, 1, 0], "groups": np.array("a")}, "one axis, got .* groups"),
    ],
)
def test_arrays_that_cannot_be_used_are_told(tmp_path, arrays, told):
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(CrediblyError, match=told):
        read_predictions(tmp_path / "p.npz")


def test_an_array_whose_bytes_are_damaged_is_told(tmp_path):
    np.savez(tmp_path / "p.npz", probabilities=PROBS, labels=[0, 1, 0])
    content, refused = (tmp_path / "p.npz").read_bytes(), 0
    for place in range(0, len(content), 7):
        (tmp_path / "p.npz").write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        try:
            judged = read_predictions(tmp_path / "p.npz")
        except CrediblyError:
            refused += 1
        else:
            # Nothing that counts was hit.
            np.testing.assert_allclose(np.exp(judged.predictions.log_probs), PROBS, atol=1e-6)
            np.testing.assert_array_equal(judged.predictions.labels, [0, 1, 0])
    assert refused > 10


def test_an_archive_cut_short_is_told(tmp_path):
    np.savez(tmp_path / "p.npz", probabilities=PROBS, labels=[0, 1, 0])
    whole = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "p.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"expected an NPZ file"):
        read_predictions(tmp_path / "p.npz")


def changed(place, **values):
    return [{**row, **values} if number == place else row for number, row in enumerate(rows())]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (rows()[:-1], r"member m1 lacks 1 \(ids t2\)"),
        (changed(1, id="t0"), r"csv:3: id 't0' of member m0 comes twice"),
        (changed(4, label="no"), r"csv:6: id 't1' has another label"),
        (changed(0, **{"probability.no": 0.5}), r"csv:2: columns .* sum to 0.6"),
        (changed(0, **{"probability.no": 3.2}), r"csv:2: column 'probability.no' holds 3.2"),
        (changed(0, **{"probability.no": None}), r"csv:2: column 'probability.no' is empty"),
        ([{**row, "label": "maybe"} for row in rows()], r"labels maybe are no classes.*no, yes"),
        ([{"id": 1, "label": "a", "probability.a": 1.0}], r"each of two classes or more, got probability.a"),
        ([{**dict(list(row.items())[1:])} for row in rows()], r"column 'id' beside"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_told(tmp_path, content, told):
    with pytest.raises(DataError, match=told):
        read_predictions(written(tmp_path, content, "csv"))


@pytest.mark.parametrize("column", ["id", "group", "label"])
def test_a_column_that_was_named_and_is_not_there_is_told(tmp_path, column):
    with pytest.raises(DataError, match=r"expected .* column 'nope'"):
        read_predictions(written(tmp_path, rows(), "csv"), PredictionColumns(**{column: "nope"}))


def test_what_predict_writes_holds_no_true_labels(tmp_path):
    content = [
        {"id": f"t{text}", "label": "no", "probability": 0.9, "probability.no": 0.9, "probability.yes": 0.1,
         "total": 0.3, "aleatoric": 0.3, "epistemic": 0.0}
        for text in range(3)
    ]  # fmt: skip
    judged = read_predictions(written(tmp_path, content, "csv"))
    assert (judged.predictions.labels == UNKNOWN).all()


def test_a_join_does_not_go_through_all_ids_for_every_row(tmp_path):
    passes = []

    class Counted(tuple):
        def __iter__(self):
            passes.append(self)
            return super().__iter__()

    table = [{**rows(1)[0], "id": f"t{place}"} for place in range(300)]
    judged = read_predictions(written(tmp_path, table, "csv"))
    truth = judged.examples
    judged = replace(judged, examples=replace(truth, ids=Counted(truth.ids)))
    passes.clear()
    with_truth(judged, truth)
    assert len(passes) < 10


def test_a_labelled_file_is_joined_by_id(tmp_path):
    grouped = rows(1, group=["a", "b", "a"])
    judged = read_predictions(written(tmp_path, grouped, "csv"), PredictionColumns(label=None))
    truth = [{"id": f"t{text}", "text": f"text {text}", "label": LABELS[text]} for text in (2, 0, 1)]
    file = tmp_path / "truth.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in truth), encoding="utf-8")
    examples = read_examples(file, DataSettings(train="-", id="id"), ("no", "yes"))
    found = with_truth(judged, examples)
    assert found.examples.texts == ("text 0", "text 1", "text 2")
    assert found.examples.groups == ("a", "b", "a")
    assert found.predictions.groups.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(found.predictions.labels, [0, 1, 0])
    np.testing.assert_array_equal(found.predictions.log_probs, judged.predictions.log_probs)
    with pytest.raises(DataError, match=r"1 of the predictions are not labelled \(t1\) and 0 labelled"):
        with_truth(judged, examples.take([0, 1]))
