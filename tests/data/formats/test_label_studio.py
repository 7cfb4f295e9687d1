"""Label Studio's exports: which annotation counts, what is a region, brush masks against its converter; writing."""

import base64
import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from drawn import contents, disc, masks_of_kinds, write_drawn
from maskrcnn import RLE, UserError
from maskrcnn.data.formats import label_studio, open_dataset, write_dataset
from maskrcnn.data.formats.brush import encode_brush
from maskrcnn.data.formats.label_studio import picture_names
from maskrcnn.data.formats.source import Source

HW = (30, 40)
CORNERS = [[10, 10], [50, 20], [30, 80]]
POLYGON = RLE.from_polygons([[4, 3, 20, 6, 12, 24]], HW)


def result(kind="polygonlabels", value=None, labels=("nut",), **more):
    value = {"points": CORNERS} if value is None else value
    sizes = {"original_width": HW[1], "original_height": HW[0], "image_rotation": 0}
    named = {kind: list(labels)} if labels else {}
    tags = {"type": kind, "from_name": "label", "to_name": "image"}
    return {**tags, **sizes, "value": value | named, **more}


def annotation(*results, **more):
    return {"id": 7, "result": list(results), "was_cancelled": False, "ground_truth": False, **more}


def task(*annotations, image="/data/upload/1/3f2a1b0c-a.png", number=1, **more):
    return {"id": number, "data": {"image": image}, "annotations": list(annotations), "predictions": [], **more}


def write_picture(path, hw=HW):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*hw, 3), np.uint8)).save(path)


def opened(source, **options):
    notes: list[str] = []
    data = open_dataset(source, say=notes.append, **options)
    return data, "\n".join(notes)


def read(tmp_path, *tasks, pictures=("a.png",), **options):
    for name in pictures:
        write_picture(tmp_path / name)
    (tmp_path / "export.json").write_text(json.dumps(list(tasks)), "utf-8")
    return opened(tmp_path / "export.json", **options)


def read_results(tmp_path, *results, **options):
    return read(tmp_path, task(annotation(*results)), **options)


def classes(data):
    return [data.class_names[label - 1] for label in data.labels]


# ---- regions ------------------------------------------------------------------------------------------------------


def test_polygon_is_in_percent_of_the_picture(tmp_path):
    data, notes = read_results(tmp_path, result(value={"points": CORNERS, "closed": True}))
    assert data.rles(0) == [POLYGON]
    assert classes(data) == ["nut"]
    assert data.place(0).endswith("export.json, result 1")
    assert "Label Studio" in notes


def test_ellipse_turns_around_its_centre(tmp_path):
    ellipse = {"x": 50, "y": 50, "radiusX": 30, "radiusY": 4 / 30 * 100, "rotation": 90}
    data, _ = read_results(
        tmp_path, result("ellipselabels", ellipse), result("ellipselabels", ellipse | {"rotation": 0, "radiusY": 40})
    )
    assert data.boxes.tolist() == [[16, 3, 24, 27], [8, 3, 32, 27]]
    assert np.array_equal(data.rles(0)[1].to_mask(), disc(HW, (20, 15), 12))


def test_rectangles_and_points_have_no_mask(tmp_path):
    box = {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 0}
    others = [result("rectanglelabels", box), result("keypointlabels", {"x": 1, "y": 1, "width": 0.3})]
    others += [{"type": "relation", "from_id": "a", "to_id": "b"}, result("choices", {"choices": ["good"]}, ())]
    data, notes = read_results(tmp_path, *others, result())
    assert data.n_instances == 1
    assert data.rows.tolist() == [5]
    for kind in ("rectangles", "results of the type keypointlabels", "type relation", "type choices"):
        assert f"{kind} (1)" in notes
    with pytest.raises(UserError, match=r"has no masks: all it has is rectangles \(1\)"):
        read_results(tmp_path, others[0])


def test_results_of_one_id_are_one_region(tmp_path):
    value = {"points": CORNERS}
    data, _ = read_results(
        tmp_path,
        result("polygon", value, (), id="r1"),
        result("labels", value, ["fig"], id="r1"),
        result("choices", {"choices": ["ripe", "cut"]}, (), id="r1"),
        result("textarea", {"text": ["see left"]}, (), id="r1"),
        result(id="r2", meta={"text": ["unsure"]}),
    )
    assert classes(data) == ["fig", "nut"]
    assert data.attributes.tolist() == ["ripe cut see left", "unsure"]


def test_first_of_several_labels_is_the_class(tmp_path):
    data, notes = read_results(tmp_path, result(labels=["nut", "broken"]), result(labels=["fig"]))
    assert classes(data) == ["nut", "fig"]
    assert data.attributes.tolist() == ["broken", ""]
    assert "results with several labels (1)" in notes


def test_regions_without_any_labels_are_of_one_class(tmp_path):
    data, _ = read_results(tmp_path, result("polygon", labels=()), result("polygon", labels=()))
    assert data.class_names == ["object"]
    with pytest.raises(UserError, match=r"result 2: image .*the region has no label"):
        read_results(tmp_path, result(), result("polygon", labels=()))


def test_bitmask_is_what_is_not_transparent(tmp_path, rng):
    mask = rng.random(HW) > 0.5
    file = io.BytesIO()
    Image.fromarray(np.dstack([np.zeros((*HW, 3), np.uint8), np.where(mask, 255, 0).astype(np.uint8)])).save(
        file, "PNG"
    )
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    data, _ = read_results(tmp_path, result("bitmasklabels", {"imageDataURL": url}))
    assert np.array_equal(data.rles(0)[0].to_mask(), mask)


BAD_RESULTS = {
    "two points": (result(value={"points": CORNERS[:2]}), "needs at least 3"),
    "three coordinates": (result(value={"points": [[1, 2, 3]] * 3}), "points cannot be read"),
    "no list of points": (result(value={"points": 7}), "points cannot be read"),
    "an infinite point": (result(value={"points": [[math.inf, 1], [2, 2], [3, 1]]}), "points cannot be read"),
    "half an ellipse": (result("ellipselabels", {"x": 1, "y": 1, "radiusX": 3}), "radiusY is missing"),
    "a negative radius": (result("ellipselabels", {"x": 1, "y": 1, "radiusX": 3, "radiusY": -3}), "radii"),
    "a cut brush": (result("brushlabels", {"rle": [0, 0, 18, 192, 57]}), "brush mask"),
    "a brush of another size": (result("brushlabels", {"rle": encode_brush(RLE.empty((9, 9)))}), "brush mask"),
    "a brush of text": (result("brushlabels", {"rle": "@@@"}), "rle cannot be read"),
    "a brush of large numbers": (result("brushlabels", {"rle": [0, 10**30]}), "brush mask"),
    "a bitmask of text": (result("bitmasklabels", {"imageDataURL": "data:,aGVsbG8="}), "not a picture"),
    "a value that is a number": (result() | {"value": 3}, "result 2"),
    "a number": (5, "result 2"),
}


@pytest.mark.parametrize("case", BAD_RESULTS)
def test_malformed_result_is_named_and_costs_itself_alone(tmp_path, case):
    bad, fault = BAD_RESULTS[case]
    with pytest.raises(UserError) as error:
        read_results(tmp_path, result(), bad)
    assert "result 2" in str(error.value)
    assert fault in str(error.value)
    assert read_results(tmp_path, result(), bad, bad="skip")[0].n_instances == 1


# ---- brush masks against Label Studio's converter -----------------------------------------------------------------


@pytest.mark.parametrize("kind", masks_of_kinds(HW))
def test_brush_of_the_converter_is_read(tmp_path, kind):
    brush = pytest.importorskip("label_studio_converter.brush")
    mask = masks_of_kinds(HW)[kind]
    encoded = brush.mask2rle(mask.astype(np.uint8) * 255)
    data, _ = read_results(tmp_path, result("brushlabels", {"format": "rle", "rle": encoded}))
    assert np.array_equal(data.rles(0)[0].to_mask(), mask)


def test_converter_reads_what_is_written(tmp_path):
    brush = pytest.importorskip("label_studio_converter.brush")
    data = write_drawn(tmp_path)
    write_dataset(data, tmp_path / "out.json", "label-studio")
    for i, written in enumerate(json.loads((tmp_path / "out.json").read_text("utf-8"))):
        results = written["annotations"][0]["result"]
        layers = brush.decode_from_annotation("label", [one | one["value"] for one in results])
        assert len(layers) == data.counts[i]
        for rle, layer in zip(data.rles(i), sorted_layers(layers, results), strict=True):
            assert np.array_equal(layer > 0, rle.to_mask())


def sorted_layers(layers, results):
    """Return the converter's layers, named label-CLASS-NUMBER, in the order of the results."""
    numbers: dict[str, int] = {}
    for one in results:
        (label,) = one["value"]["brushlabels"]
        numbers[label] = numbers.get(label, -1) + 1
        yield layers[f"label-{label}-{numbers[label]}"]


# ---- tasks --------------------------------------------------------------------------------------------------------


def test_ground_truth_or_else_the_first_finished_annotation_counts(tmp_path):
    one, two, three = annotation(result()), annotation(result(), result()), annotation(*[result()] * 3)
    data, notes = read(
        tmp_path,
        task(one | {"was_cancelled": True}, two, three),
        task(one, two, three | {"ground_truth": True}, image="b.png", number=2),
        pictures=("a.png", "b.png"),
    )
    assert data.counts.tolist() == [2, 3]
    assert "tasks with several annotations (2) count with their ground truth, or else their first one" in notes


def test_tasks_that_nobody_annotated_are_left_out(tmp_path):
    data, notes = read(
        tmp_path,
        task(annotation()),
        task(image="b.png", number=2),
        task(annotation(result(), was_cancelled=True), image="c.png", number=3, predictions=[{"result": [result()]}]),
        pictures=("a.png", "b.png", "c.png"),
        unlisted="ignore",
    )
    assert data.names == ["a.png"]
    assert data.counts.tolist() == [0]
    assert "tasks without an annotation (1) are left out" in notes
    assert "tasks that annotators cancelled (1) are left out" in notes


def test_predictions_count_where_there_is_no_annotation(tmp_path):
    scored, plain = result(score=0.25), result()
    data, notes = read(
        tmp_path,
        task(annotation(result()), predictions=[{"result": [scored] * 3}]),
        task(image="b.png", number=2, predictions=[{"result": [scored, plain], "score": 0.5, "model_version": "m"}]),
        task(annotation(result()), image="c.png", number=3, predictions=[12]),
        pictures=("a.png", "b.png", "c.png"),
    )
    assert data.counts.tolist() == [1, 2, 1]
    assert data.scores[1:3].tolist() == [0.25, 0.5]
    assert np.isnan(data.scores[[0, 3]]).all()
    assert "tasks without an annotation (1) are read as their predictions" in notes


def test_completions_of_version_0_are_annotations(tmp_path):
    old = {
        "id": 0,
        "data": {"image": "a.png"},
        "completions": [{"result": [result()], "skipped": True}, {"result": [result()] * 2}],
    }
    assert read(tmp_path, old)[0].counts.tolist() == [2]


def minimal(*results, number=1, image="/data/upload/1/3f2a1b0c-a.png", **more):
    flat = [
        one["value"] | {"original_width": one["original_width"], "original_height": one["original_height"]}
        for one in results
    ]
    extra = {"id": number, "annotator": 1, "annotation_id": 3, "created_at": "2026", "lead_time": 5.5}
    return {"image": image, **({"label": flat} if flat else {}), **extra, **more}


def test_minimal_export(tmp_path):
    brush = result("brushlabels", {"format": "rle", "rle": encode_brush(POLYGON)}, ["fig"])
    data, _ = read(
        tmp_path,
        minimal(result(), brush, quality="good"),
        minimal(image="b.png", number=2),
        pictures=("a.png", "b.png"),
    )
    assert data.counts.tolist() == [2, 0]
    assert data.rles(0) == [POLYGON, POLYGON]
    assert classes(data) == ["nut", "fig"]


def test_entries_of_one_task_of_a_minimal_export_are_several_annotations(tmp_path):
    data, notes = read(tmp_path, minimal(result()), minimal(result(), result()))
    assert data.counts.tolist() == [1]
    assert "tasks with several annotations (1)" in notes


@pytest.mark.parametrize(
    "bad", [5, {"id": 3, "data": 7, "annotations": []}, {"data": {"image": "b.png"}, "annotations": 3}]
)
def test_malformed_task_is_named_and_costs_itself_alone(tmp_path, bad):
    with pytest.raises(UserError, match="task 2"):
        read(tmp_path, task(annotation(result())), bad)
    assert read(tmp_path, task(annotation(result())), bad, bad="skip")[0].n_instances == 1


# ---- pictures -----------------------------------------------------------------------------------------------------

ADDRESSES = {
    "/data/upload/1/3f2a1b0c-a.png": ("data/upload/1/3f2a1b0c-a.png", "a.png"),
    "/data/local-files/?d=my%20folder/a.png": ("my folder/a.png",),
    "http://localhost:8080/data/local-files/?d=x/a.png&t=1": ("x/a.png",),
    "https://host.org/x%20y/a.png?size=9#top": ("x y/a.png",),
    "s3://bucket/x/a.png": ("x/a.png",),
    "gs://bucket/3f2a1b0c-a.png": ("3f2a1b0c-a.png", "a.png"),
    "azure-blob://container/a.png": ("a.png",),
    "upload\\1\\a.png": ("upload/1/a.png",),
    "a.png": ("a.png",),
    "3f2a1b0c-": ("3f2a1b0c-",),
    "http://[broken/a.png": ("http://[broken/a.png",),
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_names_of_addresses(address):
    assert picture_names(address) == ADDRESSES[address]


@pytest.mark.parametrize("name", ["a.png", "3f2a1b0c-a.png", "deep/a.png", "A.PNG"])
@pytest.mark.parametrize("address", ["/data/upload/1/3f2a1b0c-a.png", "/data/local-files/?d=x/3f2a1b0c-a.png"])
def test_picture_is_found_with_and_without_the_prefix_of_an_upload(tmp_path, name, address):
    data, _ = read(tmp_path, task(annotation(result()), image=address), pictures=(name,))
    assert data.files == [tmp_path / name]


def test_name_with_a_prefix_wins(tmp_path):
    data, notes = read(tmp_path, task(annotation(result())), pictures=("a.png", "3f2a1b0c-a.png"))
    assert data.files == [tmp_path / "3f2a1b0c-a.png"]
    data, notes = read(tmp_path / "other", task(annotation(result())))
    assert "1 picture is found under another name" in notes


def test_key_of_the_picture_is_the_one_with_names_of_pictures(tmp_path):
    one = task(annotation(result())) | {"data": {"id": "x", "photo": "a.png", "text": "a nut"}}
    data, notes = read(tmp_path, one)
    assert data.names == ["a.png"]
    assert "pictures from the key 'photo'" in notes
    with pytest.raises(UserError, match=r"--column image=KEY"):
        read(tmp_path, one | {"data": {"link": "https://host/7", "n": 3}})
    write_picture(tmp_path / "7.png")
    assert read(tmp_path, one | {"data": {"link": "https://host/7"}}, columns={"image": "link"})[0].names == ["7"]
    _, notes = read(tmp_path, one, columns={"class": "label", "image": "photo"})
    assert "Label Studio has no use for --column class=label\n" in f"{notes}\n"


def test_task_without_one_picture_is_named(tmp_path):
    several = task(annotation(result()), number=44) | {"data": {"image": ["a.png", "b.png"]}}
    with pytest.raises(UserError, match="task 44: 'image' is not the address of one picture"):
        read(tmp_path, task(annotation(result())), several)


def test_stated_size_is_compared_with_the_picture(tmp_path):
    write_picture(tmp_path / "a.png", (15, 20))
    (tmp_path / "x.json").write_text(json.dumps([task(annotation(result()))]))
    with pytest.raises(UserError, match="height, width are 30, 40"):
        opened(tmp_path / "x.json")


def test_folder_of_an_export(tmp_path):
    write_picture(tmp_path / "images/3f2a1b0c-a.png")
    (tmp_path / "project-1.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([task(annotation(result()))]).encode())
    (tmp_path / "notes.json").write_text("[1, 2")
    data, _ = opened(tmp_path)
    assert data.files == [tmp_path / "images/3f2a1b0c-a.png"]
    assert data.n_instances == 1


def test_other_files_are_not_taken(tmp_path):
    others = [{"images": [], "annotations": []}, [1, 2], [], [{"id": 1, "image": "a.png"}], [{"data": {}}], [[1]]]
    for k, content in enumerate(others):
        (tmp_path / f"{k}.json").write_text(json.dumps(content))
        assert not label_studio.recognizes(Source(tmp_path / f"{k}.json"))
    assert not label_studio.recognizes(Source(tmp_path))


# ---- writing ------------------------------------------------------------------------------------------------------


def test_masks_are_the_same_when_written_and_read_again(tmp_path):
    data = write_drawn(tmp_path)
    write_dataset(data, tmp_path / "tasks.json", "label-studio")
    again, _ = opened(tmp_path / "tasks.json", images=tmp_path / "images")
    assert contents(again) == contents(data)
    assert again.names == data.names


def test_written_tasks_have_the_form_of_an_import(tmp_path):
    data = write_drawn(tmp_path)
    write_dataset(data, tmp_path / "tasks.json", "label-studio")
    tasks = json.loads((tmp_path / "tasks.json").read_text("utf-8"))
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=gr%C3%B6%C3%9Fe%201.png"
    assert all(set(one) == {"id", "data", "annotations"} for one in tasks)
    results = [result for one in tasks for result in one["annotations"][0]["result"]]
    assert len({result["id"] for result in results}) == data.n_instances
    for one in results:
        assert {"id", "type", "from_name", "to_name", "original_width", "original_height", "value"} <= set(one)
        assert one["value"]["format"] == "rle"


def test_masks_with_scores_are_predictions(tmp_path):
    predicted = task(predictions=[{"result": [result(score=0.25, meta={"text": ["cut"]}), result()]}])
    empty = task(image="b.png", number=2, predictions=[{"result": []}])
    first, _ = read(tmp_path, predicted, empty, pictures=("a.png", "b.png"))
    write_dataset(first, tmp_path / "again.json", "label-studio")
    assert all("annotations" not in one for one in json.loads((tmp_path / "again.json").read_text()))
    second, _ = opened(tmp_path / "again.json")
    assert np.array_equal(second.scores, first.scores, equal_nan=True)
    assert second.attributes.tolist() == ["cut", ""]
    assert second.counts.tolist() == [2, 0]


def test_an_export_without_any_annotation_says_so(tmp_path):
    with pytest.raises(UserError, match=r"no task has masks to read: tasks without an annotation \(2\) are left out"):
        read(tmp_path, task(), task(image="b.png", number=2))
