"""Scores that were taken in an older way are marked in the table of scores, and the note says how."""

from conftest import SMALL

from genexp.config.components import settings_of
from genexp.papers.published import ScoresTable
from genexp.papers.scores_table import metrics_of, scores_document
from genexp.rundirs.directory import Run
from genexp.rundirs.find import find
from genexp.rundirs.results import Evaluation, record
from genexp.score import Score


def test_similarities_over_reflected_borders_are_marked_and_explained(genexp, tmp_path):
    words = [*SMALL, "epochs=1"]
    run = Run(genexp("train", *words).run)
    rows = [{"name": "GAN", "train": words}]
    content = {"kind": "scores", "title": "Scores", "dataset": ["dataset=digits"], "metrics": ["ms_ssim"], "rows": rows}
    table = ScoresTable.model_validate(content)
    metric = metrics_of(table, None)["ms_ssim"]
    older = {name: value for name, value in settings_of(metric).items() if name != "windows"}

    def keep(settings, mean):
        score = Score(mean, 0.01, "", lower_is_better=True)
        taken = Evaluation("ms_ssim", settings, {}, 0, run.step(), 1, 1.0, score, {})
        record(run.results_file, {}, {f"ms_ssim-{mean}": taken}, lambda: None)
        document = scores_document(None, None, "A toy", table, find(tmp_path / "outputs"))
        return document.tables[0].cells()[0][1], "\n".join(document.notes)

    cell, notes = keep(older, 0.25)
    assert cell == "0.25 ± 0.01‡"
    assert "MS-SSIM of GAN was taken otherwise: windows as before there was this setting, not inside." in notes
    assert "such scores do not compare with those of windows=inside" in notes
    cell, notes = keep(settings_of(metric), 0.75)
    assert cell == "0.75 ± 0.01"
    assert "windows" not in notes
