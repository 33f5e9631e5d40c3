"""`python -m benchmarks.convergence compare` and `draw` on the numbers that the documents tell."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import pytest
from typer.testing import CliRunner

from benchmarks.convergence.__main__ import app
from benchmarks.convergence.compare import Side, compare
from benchmarks.convergence.differences import Line, differences
from benchmarks.convergence.overview import overview
from benchmarks.convergence.results import GAP, LOSS, PCK
from lisa_video.errors import UserError

RESULTS = Path(__file__).parents[1] / "benchmarks/results"
LONG = RESULTS / "convergence_small_long_cpu.json"


def test_within_one_file_the_ratios_are_those_of_the_paired_comparison(tmp_path) -> None:
    args = ["compare", LONG, "plain_open", LONG, "lisa_muon", "--out", tmp_path / "found.json"]
    ran = CliRunner().invoke(app, list(map(str, args)))
    assert ran.exit_code == 0, ran.output
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["times_fewer_steps"]
    (entry,) = (arm for arm in json.loads(LONG.read_text(encoding="utf-8"))["arms"] if arm["arm"] == "lisa_muon")
    for measure in (PCK, LOSS, GAP):
        paired = entry[measure]["over"]["plain_open"]["speed_up_if_ended_at"]
        assert list(found[measure]) == list(paired)
        for horizon, ratio in paired.items():
            mean, by_seed = found[measure][horizon]["mean"], found[measure][horizon]["by_seed"]
            assert mean == (None if ratio is None else pytest.approx(ratio["value"], rel=1e-4))
            assert len(by_seed) == 3
    assert "3150 steps: 2.00, by seed" in ran.output and "3150 steps: never" in ran.output  # by gap


def test_an_arm_needs_as_many_steps_as_itself(capsys) -> None:
    side = Side.read(LONG, "plain_open")
    compare(side, side, None)
    printed = capsys.readouterr().out
    assert printed.count("1.00, by seed 1.00, 1.00, 1.00") == 3 * 6  # measures, checkpoints


def test_seeds_that_both_have_are_compared(tmp_path) -> None:
    found = json.loads(LONG.read_text(encoding="utf-8"))
    found["protocol"]["seeds"] = [2, 0]
    for row in found["arms"][0][PCK], found["arms"][0][LOSS], found["arms"][0][GAP]:
        row["per_seed"] = [row["per_seed"][2], row["per_seed"][0]]
    (tmp_path / "two.json").write_text(json.dumps(found), encoding="utf-8")
    compare(Side.read(LONG, "lisa_open"), Side.read(tmp_path / "two.json", "plain_open"), tmp_path / "out.json")
    compare(Side.read(LONG, "lisa_open"), Side.read(LONG, "plain_open"), tmp_path / "all.json")
    two, every = (json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in ("out", "all"))
    assert two["seeds"] == [0, 2]
    for measure, by_horizon in every["times_fewer_steps"].items():
        for horizon, ratios in by_horizon.items():
            assert two["times_fewer_steps"][measure][horizon]["by_seed"] == ratios["by_seed"][::2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["protocol"].update(held_out_clips=24), "held_out_clips: 24, but 48"),
        (lambda found: found["protocol"].update(seeds=[3, 4, 5]), "none in common"),
        (
            lambda found: [row.__setitem__(0, 0.5) for row in found["arms"][0][PCK]["per_seed"]],
            "frozen base alone is 0.5",
        ),
    ],
)
def test_what_was_not_measured_alike_is_not_compared(tmp_path, change, message) -> None:
    found = json.loads(LONG.read_text(encoding="utf-8"))
    change(found)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        compare(Side.read(LONG, "plain_open"), Side.read(other, "plain_open"), None)


def test_an_unknown_arm_is_named_with_those_there_are() -> None:
    with pytest.raises(UserError, match="there is no arm plane") as caught:
        Side.read(LONG, "plane")
    assert "plain_open" in str(caught.value)


def test_arms_of_several_files_are_drawn_together(tmp_path) -> None:
    cool = RESULTS / "convergence_small_cooldown_cpu.json"
    args = ["draw", tmp_path / "new" / "all.png", f"{LONG}:plain_open:AdamW", f"{cool}:lisa_fast_cool"]
    ran = CliRunner().invoke(app, list(map(str, args)))
    assert ran.exit_code == 0, ran.output
    assert matplotlib.image.imread(tmp_path / "new" / "all.png").shape[0] > 300

    sides = {"AdamW": Side.read(LONG, "plain_open"), "cool": Side.read(cool, "lisa_fast_cool")}
    accuracy, loss, _ = overview(sides).axes
    first, target, second = accuracy.lines
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["AdamW", "cool"]
    assert first.get_ydata().tolist() == [100 * value for value in sides["AdamW"].numbers(PCK)["value"]]
    assert set(target.get_ydata()) == {first.get_ydata()[-1]}
    assert second.get_xdata().tolist() == [0, 378, 756, 1134]
    assert loss.lines[0].get_ydata().tolist() == sides["AdamW"].numbers(LOSS)["value"]


def test_arms_of_one_name_are_not_drawn_over_each_other(tmp_path) -> None:
    ran = CliRunner().invoke(app, ["draw", str(tmp_path / "all.png"), f"{LONG}:plain_open", f"{LONG}:plain_open"])
    assert isinstance(ran.exception, UserError) and "second arm named plain_open" in str(ran.exception)


def test_an_arm_to_draw_needs_a_file(tmp_path) -> None:
    ran = CliRunner().invoke(app, ["draw", str(tmp_path / "all.png"), "plain_open"])
    assert isinstance(ran.exception, UserError) and "FILE:ARM" in str(ran.exception)


def test_differences_are_drawn_a_line_an_arm_and_right_is_better(tmp_path) -> None:
    args = ["draw-differences", tmp_path / "new" / "all.png", LONG, f"{LONG}:plain_muon:lisa_muon:LISA by Muon"]
    ran = CliRunner().invoke(app, list(map(str, args)))
    assert ran.exit_code == 0, ran.output
    assert matplotlib.image.imread(tmp_path / "new" / "all.png").shape[1] > 300

    found = {arm["arm"]: arm for arm in json.loads(LONG.read_text(encoding="utf-8"))["arms"]}
    lines = [line for given in args[2:] for line in Line.parse(str(given))]
    first, *others = found
    assert [line.label for line in lines] == [*others, "LISA by Muon"]
    assert {line.baseline.arm for line in lines[:-1]} == {first} and lines[-1].baseline.arm == "plain_muon"
    accuracy, loss, _ = differences(lines).axes
    assert [label.get_text() for label in accuracy.get_yticklabels()] == [line.label for line in lines]
    assert accuracy.yaxis_inverted()  # the first on top
    for axes, measure, sign in ((accuracy, PCK, 1), (loss, LOSS, -1)):
        dot, gap = axes.lines[-1], found["lisa_muon"][measure]["over"]["plain_muon"]["difference"]
        whole = found["lisa_muon"][LOSS]["value"][0] if measure == LOSS else 1
        assert dot.get_xdata()[0] == pytest.approx(sign * 100 * gap["value"][-1] / whole)
        seeds, bar = axes.lines[-2].get_xdata(), axes.lines[-3].get_xdata()
        assert len(seeds) == 3 and sum(seeds) / 3 == pytest.approx(dot.get_xdata()[0])
        assert bar[0] < dot.get_xdata()[0] < bar[1]
    assert lines[0].ahead(LOSS)[0] > 0  # LISA has the lower loss there
    for line in lines:  # some ended at half the steps of their baseline
        assert sum(line.ahead_per_seed(GAP)) / 3 == pytest.approx(line.ahead(GAP)[0], rel=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (f"{LONG}:plain_open:lisa_open", "FILE:BASELINE:ARM:LABEL"),
        (f"{LONG}:plain_open:plain_open:same", "against itself"),
        (f"{LONG}:plane:lisa_open:LISA", "there is no arm plane"),
    ],
)
def test_a_line_that_cannot_be_drawn_says_why(tmp_path, given, message) -> None:
    ran = CliRunner().invoke(app, ["draw-differences", str(tmp_path / "all.png"), given])
    assert isinstance(ran.exception, UserError) and message in str(ran.exception)
