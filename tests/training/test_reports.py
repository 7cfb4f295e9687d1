"""The last report of a run explains the errors of its model, as `maskrcnn evaluate` does, and within the budget."""

import pytest
from rich.console import Console

import maskrcnn
from maskrcnn.data.synthetic import make_shapes
from maskrcnn.evaluation import examine
from maskrcnn.inspection.diagnosis import MAX_EXAMINED, diagnose
from maskrcnn.inspection.report import write_report
from maskrcnn.training import reports
from tiny_runs import TINY, interrupt_after

SECTIONS = ("quality", "errors", "classes", "images", "missed", "false")
CONFIG = TINY.changed(predict={"score_threshold": 0.06}, train={"epochs": 3})


def sections(path) -> dict[str, str]:
    page = path.read_text("utf-8")
    return {key: page.partition(f'<section id="{key}">')[2].partition("</section>")[0] for key in SECTIONS}


@pytest.fixture(scope="module", params=["shapes", "others"])
def splits(request, shapes, tmp_path_factory):
    if request.param == "others":
        return make_shapes(tmp_path_factory.mktemp("others"), 10, seed=5, hw=(80, 110)).split(0.4)
    return shapes.split(0.3)


@pytest.fixture(scope="module")
def run(splits, tmp_path_factory):
    return maskrcnn.train(*splits, out=tmp_path_factory.mktemp("run") / "one", config=CONFIG)


@pytest.fixture(scope="module")
def evaluated(run, splits, tmp_path_factory):
    """The sections of `maskrcnn evaluate` for the model of the run."""
    path, model = tmp_path_factory.mktemp("evaluated") / "r.html", run.model
    evaluation = examine(model, splits[1], say=lambda _: None)
    write_report(path, "a run", model.config, evaluation, diagnosis=diagnose(model, evaluation, MAX_EXAMINED))
    return sections(path)


def test_the_last_report_is_that_of_the_model_of_the_run(run, evaluated):
    found = sections(run.path / "report.html")
    assert found == evaluated
    assert f"Scored after step {run.model.provenance['step']} on" in (run.path / "report.html").read_text("utf-8")
    assert "</table>" in found["missed"]
    assert "</table>" in found["false"]


@pytest.mark.parametrize("stop_step", [5, 8])
def test_a_resumed_run_ends_with_the_same_report(run, splits, evaluated, tmp_path, monkeypatch, stop_step):
    """Also if it was stopped after its best validation, whose detections nothing keeps."""
    interrupt_after(monkeypatch, stop_step)
    assert not maskrcnn.train(*splits, out=tmp_path / "two", config=CONFIG).finished
    monkeypatch.undo()
    resumed = maskrcnn.train(*splits, out=tmp_path / "two", config=CONFIG, resume=True)
    assert resumed.finished
    for name in ("last.safetensors", "best.safetensors"):
        assert (run.path / name).read_bytes() == (resumed.path / name).read_bytes()
    assert sections(resumed.path / "report.html") == evaluated


def test_a_failing_diagnosis_keeps_the_report_of_the_validation(splits, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError("no memory for a trace")

    monkeypatch.setattr(reports, "diagnose", fail)
    console = Console(record=True, quiet=False, width=200)
    config = CONFIG.changed(train={"epochs": 1})
    done = maskrcnn.train(*splits, out=tmp_path / "run", config=config, console=console)
    assert done.finished
    found = sections(done.path / "report.html")
    assert "Errors" in found["errors"]
    assert found["missed"] == ""
    assert "could not write the report, the run continues: MemoryError: no memory for a trace" in console.export_text()


def test_without_time_the_report_of_the_validation_stays(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "images_within", lambda *_: 0)
    monkeypatch.setattr(reports, "diagnose", lambda *_: pytest.fail("there is no time"))
    console = Console(record=True, width=200)
    config = CONFIG.changed(train={"epochs": 1})
    done = maskrcnn.train(*splits, out=tmp_path / "run", config=config, console=console)
    assert sections(done.path / "report.html")["missed"] == ""
    assert "the budget left no time to explain errors" in console.export_text()


def test_a_run_without_validation_has_no_causes(splits, tmp_path):
    done = maskrcnn.train(splits[0], None, out=tmp_path / "run", config=CONFIG.changed(train={"epochs": 1}))
    assert sections(done.path / "report.html")["missed"] == ""
