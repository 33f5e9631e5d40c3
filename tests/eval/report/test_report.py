"""The report: what it claims, that it needs nothing else, and that its numbers are those of the scores."""

import base64
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.report.findings import first_step_reaching, headline, remarks
from eval.report.page import write_report
from eval.report.pictures import enlarged, smoothed, still_frames, stills_uri, video_uri
from eval.report.tables import markdown_table
from eval.runs.held_out_loss import HeldOutLoss
from lisa_video.data.video_io import read_frames
from lisa_video.errors import UserError

GOOD, BAD = [0] * 8, [9] * 8
ROWS = [{"step": step, "denoising": 1 / step, "lisa_ratio": 0.8, "pck_0.1": step / 10} for step in (1, 2, 4, 8)]


class Sources(HTMLParser):
    """Collects what a page would load, and its videos and pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag, attrs) -> None:
        """See `HTMLParser`."""
        self.found += [(tag, value) for name, value in attrs if name in ("src", "srcset", "href", "data")]


def bytes_of(uri: str) -> bytes:
    """Content of a data URI."""
    return base64.b64decode(uri.partition("base64,")[2], validate=True)


@pytest.fixture(scope="module")
def report_json(make_arm, shown, tmp_path_factory) -> Path:
    """A report in which LISA wins by far, with names that would break a careless page; its JSON beside it."""
    folder = tmp_path_factory.mktemp("report")
    arms = [
        make_arm("Baseline", BAD, metrics=ROWS[:2], steps=1234, config_yaml="name: <b>bold</b>"),
        make_arm("LISA & co", GOOD, metrics=ROWS, steps=1234, training_seconds=61.4, parameters=5_000_000),
    ]
    write_report(folder / "report.html", arms, make_arm("Floor", BAD), shown, title="A <title>", note="Small data.")
    return folder / "report.json"


@pytest.fixture
def page(report_json: Path) -> str:
    """The HTML of the report."""
    return report_json.with_suffix(".html").read_text(encoding="utf-8")


def test_page_needs_no_other_file(page: str) -> None:
    """Everything that it loads is inside it, and nothing in its style points outside."""
    parser = Sources()
    parser.feed(page)
    assert parser.found and all(value.startswith("data:") for _, value in parser.found)
    assert not re.search(r"url\(|@import|https?://", page)


def test_gallery_plays_the_clips(page: str, tmp_path: Path) -> None:
    """Two clips of pose, two arms and truth: eight videos of six frames, and as many sheets of stills."""
    parser = Sources()
    parser.feed(page)
    videos = [value for tag, value in parser.found if tag == "video"]
    assert len(videos) == 8
    (tmp_path / "clip.mp4").write_bytes(bytes_of(videos[3]))
    assert read_frames(tmp_path / "clip.mp4", np.arange(6)).shape == (6, 192, 192, 3)
    assert page.count('class="stills"') == 8
    assert page.count("PCK@0.1 100.0 %") == 2 and page.count("PCK@0.1 0.0 %") == 2


def test_text_is_escaped(page: str) -> None:
    """Titles, names and configurations are shown, not interpreted."""
    assert "<title>A &lt;title&gt;</title>" in page
    assert "LISA &amp; co" in page and "LISA & co" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page


def test_page_shows_facts_plots_protocol_and_published_figures(page: str) -> None:
    """Three plots in two themes; the published figures stand apart with a warning."""
    for text in (
        "1,234",
        "61 s",
        "5,000,000",
        "Small data.",
        "guidance",
        "blue pixel",
        "57.00 %",
        "must not be compared",
    ):
        assert text in page
    assert page.count('media="(prefers-color-scheme: dark)"') == 3


def test_numbers_beside_the_page_are_those_of_the_scores(report_json: Path) -> None:
    """Read back as strict JSON."""
    numbers = json.loads(report_json.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert [arm["name"] for arm in numbers["arms"]] == ["Baseline", "LISA & co"]
    assert numbers["arms"][1]["evaluation"]["poses"][0]["pck"]["0.1"]["value"] == 1.0
    assert numbers["floor"]["evaluation"]["poses"][0]["pck"]["0.1"]["value"] == 0.0
    assert (numbers["difference"]["value"], numbers["difference"]["less"]) == (1.0, "Baseline")


def test_headline_names_the_winner_whichever_it_is(make_arm) -> None:
    """The difference is given as a gain of the winner."""
    good, bad = make_arm("LISA", GOOD), make_arm("Baseline", BAD)
    assert headline([bad, good], 0.1) == (
        "LISA follows the pose better than Baseline: PCK@0.1 100.0 % against 0.0 % on 8 clips, "
        "a difference of 100.0 points (95 % interval 100.0 to 100.0)."
    )
    reverse = headline([make_arm("Baseline", GOOD), make_arm("LISA", BAD)], 0.1)
    assert reverse.startswith("Baseline follows the pose better than LISA: PCK@0.1 100.0 % against 0.0 %")
    assert "100.0 points (95 % interval 100.0 to 100.0)" in reverse


def test_headline_claims_nothing_without_evidence(make_arm) -> None:
    """One clip more of eight is chance."""
    arms = [make_arm("Baseline", [0, 9, 9, 9, 9, 9, 9, 9]), make_arm("LISA", [0, 0, 9, 9, 9, 9, 9, 9])]
    assert headline(arms, 0.1).startswith("No difference between Baseline and LISA can be claimed")
    assert "includes zero" in headline(arms, 0.1)


def test_remarks_tell_when_control_does_not_help(make_arm) -> None:
    """An arm as bad as, and one worse than, the floor."""
    said = " ".join(remarks([make_arm("Baseline", BAD), make_arm("LISA", GOOD)], make_arm("Floor", BAD), 0.1))
    assert "Baseline cannot be told from the floor (Floor)" in said
    assert "LISA lies above the floor (Floor) by 100.0 points" in said
    worse = " ".join(remarks([make_arm("Baseline", BAD)], make_arm("Floor", GOOD), 0.1))
    assert "Baseline lies BELOW the floor (Floor) by 100.0 points" in worse
    assert "not the training seed" in said and "detector itself reaches PCK@0.1 100.0 %" in said


def test_speed_is_read_from_the_previews(make_arm) -> None:
    """The baseline ends at 0.2 after step 2; the other reaches 0.2 at step 2 too, and 0.4 at step 4."""
    first, last = make_arm("Baseline", BAD, metrics=ROWS[:2]), make_arm("LISA", GOOD, metrics=ROWS)
    assert first_step_reaching(last, 0.1, 0.3) == 4
    assert first_step_reaching(last, 0.1, 0.9) is None
    assert "LISA reached PCK@0.1 20.0 %, where Baseline ended after 2 steps, at step 2" in " ".join(
        remarks([first, last], None, 0.1)
    )
    assert "Baseline never reached PCK@0.1 80.0 %" in " ".join(remarks([last, first], None, 0.1)).replace("LISA", "X")


def test_scores_of_other_protocols_are_refused_everywhere(make_arm, tmp_path: Path) -> None:
    """In the page and in the Markdown table; nothing is written."""
    arms = [make_arm("a", GOOD), make_arm("b", GOOD, protocol={"guidance": 9.0})]
    with pytest.raises(UserError, match="cannot stand in one table"):
        write_report(tmp_path / "report.html", arms)
    with pytest.raises(UserError, match="cannot stand in one table"):
        markdown_table(arms[:1], arms[1])
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_an_arm_lacks_is_refused(make_arm, shown, tmp_path: Path) -> None:
    """The message names the arm and the clip."""
    arm = make_arm("a", GOOD)
    arm.videos.pop("clip-1")
    with pytest.raises(UserError, match="'a' has no clip clip-1"):
        write_report(tmp_path / "report.html", [arm], clips=shown)


def test_arms_without_metrics_make_a_report_without_plots(make_arm, tmp_path: Path) -> None:
    """Neither gallery nor curves: the sections are left out, too."""
    write_report(tmp_path / "report.html", [make_arm("only", GOOD)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Training</h2>" not in page and "<h2>Clips</h2>" not in page
    assert "only reaches PCK@0.1 100.0 % on 8 clips." in page.replace("\N{NO-BREAK SPACE}", " ")


def test_the_pose_gap_is_told_and_compared_where_it_is_known(make_arm) -> None:
    arms = [make_arm(name, GOOD) for name in ("Baseline", "LISA")]
    assert not any("poses of another clip" in said for said in remarks(arms, None, 0.1))
    for place, misled in enumerate((1.1, 1.5)):
        loss = HeldOutLoss({}, (1.0,), ("a", "b"), ((1.0,),) * 2, ((misled,),) * 2, ((2.0,),) * 2)
        arms[place] = replace(arms[place], evaluation=replace(arms[place].evaluation, loss=loss))
    (said,) = [said for said in remarks(arms, None, 0.1) if "poses of another clip" in said]
    assert "Baseline 5.0 %, LISA 25.0 %" in said and "LISA less Baseline: +20.0" in said and "beyond chance" in said
    (said,) = [said for said in remarks(arms[:1], None, 0.1) if "poses of another clip" in said]
    assert said.endswith("Baseline 5.0 %.")


def rows_of(text: str) -> list[list[str]]:
    """Cells of the lines of Markdown tables."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_markdown_tables_by_hand(make_arm) -> None:
    """Errors of 3 pixels are 15 % of the diagonal: right at 0.2 only. One table by the detector, one of the rest."""
    arm = make_arm("LISA", [3] * 4, steps=10)
    loss = HeldOutLoss({"score": "loss"}, (1.0,), ("a", "b"), ((1.0,), (1.0,)), ((1.5,), (1.5,)), ((2.0,), (2.0,)))
    arm = replace(arm, evaluation=replace(arm.evaluation, loss=loss))
    text = markdown_table([arm])
    rows = rows_of(text)
    assert rows[0] == ["Arm", "PCK@0.05 ↑", "PCK@0.1 ↑", "PCK@0.2 ↑", "Joint error ↓"]
    names = [row[0] for row in rows]
    assert names == ["Arm", "Poses of other clips", "LISA", "True frames", "Arm", "LISA", "Halves of the true clips"]
    assert rows[2][1:] == ["0.0 % [0.0 to 0.0]", "0.0 % [0.0 to 0.0]", "100.0 % [100.0 to 100.0]", "15.0 %"]
    assert rows[3][1] == "100.0 % [100.0 to 100.0]"
    heads = ["Fréchet ↓", "PSNR ↑", "Held-out loss ↓", "Pose gap ↑", "Steps", "Training", "Parameters"]
    assert rows[4] == ["Arm", *heads]
    assert rows[5][3:6] == ["1.0000", "25.0 % [25.0 to 25.0]", "10"]
    parts = arm.evaluation
    for protocol in (parts.poses[0], parts.distances[0], parts.pixels, loss):
        assert protocol.protocol_id in text


def test_each_detector_has_a_table_and_a_protocol_of_its_own(make_arm, tmp_path: Path) -> None:
    """Numbers of two detectors share neither column nor protocol id; the page shows bars for each."""
    arms = []
    for name, errors in (("Baseline", BAD), ("LISA", GOOD)):
        arm, other = make_arm(name, errors), make_arm(name, [1] * 8, protocol={"guidance": 2.0, "eyes": "others"})
        arms.append(
            replace(arm, evaluation=replace(arm.evaluation, poses=(*arm.evaluation.poses, *other.evaluation.poses)))
        )
    ids = [scores.protocol_id for scores in arms[0].evaluation.poses]
    assert len(set(ids)) == 2
    text = markdown_table(arms)
    assert [text.count(identity) for identity in ids] == [1, 1] and text.count("Pose accuracy by") == 2
    write_report(tmp_path / "report.html", arms)
    page = (tmp_path / "report.html").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert page.count('<div class="bars">') == 2
    assert "PCK@0.1 Baseline 100.0 %, LISA 100.0 %; on the true frames 100.0 %." in page  # of the second detector


def test_a_ceiling_stands_between_the_arms_and_the_true_frames(make_arm, tmp_path: Path) -> None:
    """In page, JSON, Markdown and remarks; scored by another protocol it is refused like any arm."""
    arms, floor, ceiling = [make_arm("LISA", [3] * 8)], make_arm("Floor", BAD), make_arm("Through the VAE", GOOD)
    names = [row[0] for row in rows_of(markdown_table(arms, floor, ceiling))]
    assert names[1:6] == ["Poses of other clips", "Floor", "LISA", "Through the VAE", "True frames"]
    assert any(said.startswith("Through the VAE has PCK@0.1 100.0 %") for said in remarks(arms, floor, 0.1, ceiling))
    write_report(tmp_path / "report.html", arms, floor, ceiling=ceiling)
    numbers = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert numbers["ceiling"]["evaluation"]["poses"][0]["pck"]["0.1"]["value"] == 1.0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('class="bar ceiling"') == 2 and page.count('<tr class="ceiling">') == 4
    with pytest.raises(UserError, match="cannot stand in one table"):
        write_report(tmp_path / "other.html", arms, ceiling=make_arm("x", GOOD, protocol={"guidance": 9.0}))


def test_small_clips_are_enlarged_by_whole_factors(tmp_path: Path) -> None:
    """48 x 40 pixels are enlarged 5 times; large ones are only cut to even sides."""
    assert enlarged(np.zeros((1, 40, 48, 3), np.uint8)).shape == (1, 200, 240, 3)
    assert enlarged(np.zeros((1, 301, 203, 3), np.uint8)).shape == (1, 300, 202, 3)
    (tmp_path / "clip.mp4").write_bytes(bytes_of(video_uri(np.full((5, 40, 48, 3), 200, np.uint8), 8.0)))
    frames = read_frames(tmp_path / "clip.mp4", np.arange(5))
    assert frames.shape == (5, 200, 240, 3) and abs(frames.astype(int) - 200).max() <= 4


def test_stills_run_from_the_first_to_the_last_frame() -> None:
    """In reading order; the gap between them is clear."""
    assert still_frames(16) == [0, 5, 10, 15] and still_frames(3) == [0, 1, 2] and still_frames(1) == [0]
    frames = np.zeros((16, 48, 48, 3), np.uint8) + np.arange(16, dtype=np.uint8)[:, None, None, None] * 10
    sheet = cv2.imdecode(np.frombuffer(bytes_of(stills_uri(frames)), np.uint8), cv2.IMREAD_UNCHANGED)
    side = 96
    corners = [sheet[2, 2], sheet[2, -2], sheet[-2, 2], sheet[-2, -2]]
    assert [int(corner[0]) for corner in corners] == [0, 50, 100, 150]
    orange = cv2.imdecode(
        np.frombuffer(bytes_of(stills_uri(np.full((1, 48, 48, 3), (200, 100, 0), np.uint8))), np.uint8),
        cv2.IMREAD_COLOR,
    )
    assert orange[5, 5].tolist() == [0, 100, 200], "cv2 reads blue, green, red"
    assert sheet[2, side + 2, 3] == 0 and all(corner[3] == 255 for corner in corners)


def test_smoothing_keeps_means_and_skips_what_is_missing() -> None:
    """Pairs of rows are averaged; rows without the value, or with NaN, do not count."""
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 4.0}, {"step": 3}, {"step": 4, "loss": math.nan}]
    rows += [{"step": 5, "loss": 1.0}]
    assert smoothed(rows, "loss", points=2) == ([1.5, 5.0], [3.0, 1.0])
    assert smoothed(rows, "lisa_ratio") == ([], [])
