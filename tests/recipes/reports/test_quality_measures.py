"""Labels of measures, those of samples and those that are not known."""

from amenable.evaluation.tasks.forms import FORMS
from amenable.recipes.reports.quality_measures import MEASURES, OTHERS, SECTIONS, Measure, measure_of, section_of


def test_labels() -> None:
    assert measure_of("flips") == Measure("flips between right and wrong", -1)
    assert measure_of("sampled_flips") == Measure("flips between right and wrong, of samples", -1)
    assert measure_of("acc_norm") == Measure("acc norm", 1, False)
    assert {measure.better for measure in MEASURES.values()} == {-1, 0, 1}


def test_sections_are_of_forms_that_exist() -> None:
    assert set(SECTIONS) <= {form.name for form in FORMS}
    assert section_of("mmlu") is OTHERS and section_of("xstest").title == "Refusal and over-refusal"
