"""Classes of a model and of data meet by name before id; what does not match is refused or said."""

import dataclasses

import numpy as np
import pytest

import maskrcnn
from lively import predictor
from maskrcnn import UserError
from maskrcnn.evaluation import evaluate, find
from maskrcnn.evaluation.classes import match_classes, pair_classes
from maskrcnn.inference.predictor import Predictor
from maskrcnn.structures import UNNAMED_CLASS


def with_classes(model, ids, names) -> Predictor:
    return Predictor(model.runtime, model.config, list(ids), list(names))


@pytest.fixture(scope="module")
def model():
    return predictor()


def data_of(shapes, ids, names=None):
    return dataclasses.replace(shapes, class_ids=list(ids), class_names=list(names or map(str, ids)))


def scores_of(model, data):
    notes = []
    scores = evaluate(model, data, say=notes.append)
    return scores, notes


def test_shifted_ids_without_names_are_refused(model, shapes):
    shifted = with_classes(model, [0, 1, 2, 3], "0123")
    for call in (evaluate, lambda m, d: find(m, d, [0]), match_classes):
        with pytest.raises(UserError, match=r"only the model has class 0; only the data has class 4.*--class-names"):
            call(shifted, data_of(shapes, [1, 2, 3, 4]))


def test_train_refuses_validation_data_of_shifted_ids(shapes, tmp_path):
    train, val = data_of(shapes, [0, 1, 2, 3]), data_of(shapes, [1, 2, 3, 4])
    with pytest.raises(UserError, match="do not agree"):
        maskrcnn.train(train, val, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_names_decide_and_their_scores_do_not_depend_on_ids(model, shapes):
    """The same names under other ids, in another order: the scores of every class stay the same."""
    names = ["disc", "box", "triangle", "star"]
    renumbered = with_classes(model, [1, 2, 3, 4], model.class_names)
    plain, silence = scores_of(renumbered, data_of(shapes, [1, 2, 3, 4], model.class_names))
    labels = np.array([0, *(names.index(name) + 1 for name in model.class_names)])[shapes.labels]
    moved = dataclasses.replace(data_of(shapes, [4, 3, 2, 1], names), labels=labels)
    scores, notes = scores_of(renumbered, moved)
    assert not any("classes" in note for note in silence)
    assert any("matched by name" in note for note in notes)
    for kind in ("box", "mask"):
        assert scores[kind]["per_class"] == {name: plain[kind]["per_class"][name] for name in names}
    assert scores["kaggle"]["per_threshold"] == plain["kaggle"]["per_threshold"]
    found = find(renumbered, moved, range(len(moved))).values()
    pairs = {(int(c), name) for dets in found for c, name in zip(dets.class_ids, dets.class_names, strict=True)}
    assert {(4, "disc"), (3, "box")} <= pairs <= set(zip([4, 3, 2, 1], names, strict=True))


def test_names_without_a_counterpart_are_listed(model, shapes):
    names = ["box", "disc", "rhombus", "star"]
    scores, notes = scores_of(model, data_of(shapes, [7, 8, 9, 10], names))
    assert "does not know class rhombus (id 9)" in "".join(notes)
    assert "lacks class triangle of the model" in "".join(notes)
    assert scores["mask"]["per_class"]["rhombus"]["AR"] in (0, None)
    found = find(model, data_of(shapes, [7, 8, 9, 10], names), range(len(shapes)))
    assert {name for detections in found.values() for name in detections.class_names} <= set(names)
    with pytest.raises(UserError, match="nothing in common"):
        evaluate(model, data_of(shapes, [1, 2, 3, 4], ["w", "x", "y", "z"]))


@pytest.mark.parametrize(("model_ids", "data_ids", "listed"), [
    ([1, 2, 3, 4], [2, 3, 4, 1], None),
    ([1, 2, 3, 4], ["4", "3", "2", "1"], None),
    ([1, 2, 3, 4], [1, 2, 3], "lacks class 4 of the model"),
    ([1, 2, 3], [1, 2, 3, 4], "does not know class 4"),
])  # fmt: skip
def test_ids_alone_must_agree_as_sets(model, shapes, model_ids, data_ids, listed):
    match = match_classes(with_classes(model, model_ids, map(str, model_ids)), data_of(shapes, data_ids))
    assert (match.note is None) if listed is None else (listed in match.note)
    assert all(str(data_ids[label - 1]) == key for key, label in match.label_of.items() if label)


def test_names_of_one_side_leave_the_ids_to_decide(model, shapes):
    named = with_classes(model, [1, 2, 3, 4], model.class_names)
    assert match_classes(named, data_of(shapes, [1, 2, 3, 4])).note is None
    with pytest.raises(UserError, match=r"only the model has class box \(id 1\); only the data has class 9"):
        match_classes(named, data_of(shapes, [2, 3, 4, 9]))


@pytest.mark.parametrize(("ids", "names", "pairs"), [
    ([0], ["0"], [1]),  # imported, numbered from 0
    ([1], ["nucleus"], [1]),
    ([0, 1], ["0", "1"], [0, 0]),  # which of the two is not known
])  # fmt: skip
def test_data_without_a_class_column_pairs_with_a_single_class_alone(model, shapes, ids, names, pairs):
    data = data_of(shapes, [1], [UNNAMED_CLASS])
    assert pair_classes(with_classes(model, ids, names), data).tolist() == pairs


def test_data_without_classes_is_not_scored_as_the_first_of_several(model, shapes):
    named = with_classes(model, [1, 2, 3, 4], ["person", "car", "dog", "cat"])
    unnamed = data_of(shapes, [1], [UNNAMED_CLASS])
    assert not pair_classes(named, unnamed).any()
    assert not pair_classes(unnamed, named).any()
    with pytest.raises(UserError, match="--column class=NAME"):
        match_classes(named, unnamed)
