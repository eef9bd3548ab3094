"""`experiments.report`: what a table of differences says and marks."""

import pandas as pd

from experiments import report
from helpers.evaluation import tables
from helpers.evaluation.tables import Difference


def test_a_difference_is_marked_by_what_it_can_say():
    assert (
        report.difference_text(Difference(1.0, -0.5, 2.0, 0.2), "{:+.1f}") == "? +1.0 [-0.5, +2.0]"
    )
    clear = Difference(1.0, 0.5, 2.0, 0.001)
    assert report.difference_text(clear, "{:+.1f}") == "+1.0 [+0.5, +2.0]"
    assert report.difference_text(clear, "{:+.1f}", survives=True) == "**+1.0 [+0.5, +2.0]**"
    five, six = (clear._replace(p=tables.least_p(range(n))) for n in (5, 6))
    assert report.difference_text(five, "{:+.1f}") == "(+1.0 [+0.5, +2.0])"
    assert report.difference_text(six, "{:+.1f}") == "+1.0 [+0.5, +2.0]"


def test_a_table_of_differences_corrects_for_how_many_it_makes():
    sure, weak = Difference(2.0, 1.0, 3.0, 0.0002), Difference(1.0, 0.1, 2.0, 0.03)
    none, few = Difference(0.1, -1.0, 1.0, 0.8), Difference(2.0, 1.0, 3.0, 0.0625)
    found = {("white", "GTCRN"): {"dB": sure, "PESQ": weak}, ("pink", "GTCRN"): {"dB": none}}
    found["pink", "GTCRN"]["PESQ"] = few
    text = report.verdict_table(found, {"dB": "{:+.1f}", "PESQ": "{:+.1f}"}, "input", "minus")
    head, _, first, second, _, note = text.splitlines()
    assert head == "| input | minus | dB | PESQ |"
    assert first == "| white | GTCRN | **+2.0 [+1.0, +3.0]** | +1.0 [+0.1, +2.0] |"
    assert second == "| pink | GTCRN | ? +0.1 [-1.0, +1.0] | (+2.0 [+1.0, +3.0]) |"
    assert note == (
        "4 comparisons: 2 told apart one by one, 1 of them in all together (bold); 1 in brackets."
    )


def test_differences_are_those_of_the_pairs_and_draw_sources():
    lines = []
    for i in range(60):
        row = {"utterance": f"u{i}", "speaker": f"s{i % 12}", "source": f"c{i % 5}"}
        row |= {"kind": "recorded", "low": 0, "high": 8_000, "snr_db": 0, "level_db": None}
        gain = 1.0 + (i % 5)  # by the source alone
        lines += [row | {"system": "a", "si_sdr": 5 + gain}, row | {"system": "b", "si_sdr": 5.0}]
    rows = pd.DataFrame(lines)
    found = tables.difference(rows, "a", "b", "si_sdr")
    assert found.mean == 3
    assert 1 < found.low < 2.2
    assert 3.8 < found.high < 5
    without = tables.difference(rows.drop(columns="source"), "a", "b", "si_sdr")
    assert without.high - without.low < found.high - found.low
    assert tables.paired(rows, "a", "b", "si_sdr") == found[:3]
