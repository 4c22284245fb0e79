"""The bench's pure parts: what spoils a run, and how points become ratios."""

import json

import pytest

from tests.bench import report, wrk
from tests.bench.faults import faults
from tests.bench.report import Point
from tests.bench.workload import FIXED, WrongAnswer, answer, check, numbers, question

INFO = '{"level":"info","who":"a/proxy","event":"serving"}'


@pytest.mark.parametrize(
    ("sentence", "log", "spoils"),
    [
        ("a silent log is fine", "\n\n", False),
        ("records of the usual kind are fine", INFO, False),
        ("a warning is a record like others", '{"level":"warning","event":"not root"}', False),
        (
            "a remark of the runtime is none of ours",
            "\x1b[0;93m2026 [W:onnxruntime:Default, t.cc:6] x\x1b[m",
            False,
        ),
        ("an error of the runtime counts", "2026 [E:onnxruntime:Default, s.cc:6] no memory", True),
        ("an error record counts", '{"level":"error","event":"the handler failed"}', True),
        ("so does a critical one", '{"level":"critical","event":"hung"}', True),
        ("a caught exception counts at any level", '{"level":"info","exception":"Traceback"}', True),
        ("a traceback is no record", "Traceback (most recent call last):", True),
        ("a thread's last words count", "Exception in thread device:", True),
        ("JSON that is no record counts", '["level"]', True),
    ],
)
def test_a_log(sentence, log, spoils):
    assert bool(faults(f"{INFO}\n{log}\n{INFO}")) is spoils, sentence


def test_the_lines_that_spoil_are_given_as_they_are():
    assert faults(f"{INFO}\nKeyError: 'x'\n") == ["KeyError: 'x'"]


@pytest.mark.parametrize(
    ("sentence", "status", "body"),
    [
        ("another status", 503, answer(FIXED)),
        ("another number", 200, answer((*FIXED[:-1], 0.0))),
        ("one number too many", 200, answer((*FIXED, 0.0))),
        ("an error in a 200", 200, b'{"error": "no"}'),
        ("no JSON", 200, b"oops"),
        ("a list", 200, b"[]"),
        ("nothing", 200, b""),
    ],
)
def test_a_wrong_answer_is_refused(sentence, status, body):
    assert sentence
    with pytest.raises(WrongAnswer, match="somebody"):
        check("somebody", status, body, FIXED)


def test_the_right_answer_is_taken_however_it_is_spaced():
    check("somebody", 200, answer(FIXED), FIXED)
    check("somebody", 200, json.dumps(json.loads(answer(FIXED)), indent=2).encode(), FIXED)


def test_questions_differ_and_are_exact_in_fp32():
    asked = [numbers(seed) for seed in range(1000)]
    assert len(set(asked)) == 1000
    assert all(value * 16 == int(value * 16) < 2**24 for values in asked for value in values)
    assert json.loads(question(FIXED))["inputs"][0]["data"] == list(FIXED)


def test_the_script_holds_both_bodies_as_they_are():
    text = wrk.script(question(FIXED), answer(FIXED))
    assert f"wrk.body = [==[{question(FIXED).decode()}]==]" in text
    assert f"local expected = [==[{answer(FIXED).decode()}]==]" in text
    with pytest.raises(ValueError, match="long string"):
        wrk.script(b"{}", b"]==] os.exit()")


def result(**changed):
    told = {"answers": 4000, "us": 2_000_000, "p50_us": 480.0, "wrong": 0, "failed": 0, **changed}
    return f"Running 2s test\nRESULT {json.dumps(told)}\nSAMPLE 500 oops\n"


def test_a_good_result_of_wrk():
    assert wrk.parse(result(), 0.5, "door") == wrk.Load(4000, 2.0, 480.0, 0.5)


@pytest.mark.parametrize(
    ("sentence", "printed", "message"),
    [
        ("one wrong body among thousands", result(wrong=1), "1 wrong answers .* SAMPLE 500 oops"),
        ("one connection refused", result(failed=1), "1 errors"),
        ("no answer at all", result(answers=0), "beside 0 answers"),
        ("wrk could not connect", "unable to connect to 127.0.0.1:1\n", "unable to connect"),
    ],
)
def test_a_bad_result_of_wrk_fails_the_run(sentence, printed, message):
    assert sentence
    with pytest.raises(WrongAnswer, match=message):
        wrk.parse(printed, 0.0, "door")


def point(server, number, per_s, connections=32, cpu_us=100.0):
    return Point(server, connections, number, 1000, per_s, 500.0, cpu_us, 0.3)


# The machine halves its speed in round 2: the servers' own medians would say 2.25.
POINTS = [
    point("node", 1, 9000.0),
    point("aiohttp", 1, 3000.0, cpu_us=200.0),
    point("node", 2, 4000.0),
    point("aiohttp", 2, 1600.0, cpu_us=400.0),
    point("node", 3, 8000.0),
    point("aiohttp", 3, 4000.0, cpu_us=200.0),
    point("node", 4, 8000.0),
]


def test_a_ratio_is_taken_within_a_round_and_then_over_the_rounds():
    found = report.headline(POINTS)
    assert found.rounds == (3.0, 2.5, 2.0)
    assert found.middle == 2.5
    assert str(found) == "2.50 (2.00-3.00)"
    assert report.ratio(POINTS, "node", "aiohttp", 32, "cpu_us").rounds == (0.5, 0.25, 0.5)


@pytest.mark.parametrize(
    ("sentence", "of", "to", "connections"),
    [
        ("no such load was measured", "node", "aiohttp", 8),
        ("no such server was measured", "node", "door", 32),
        ("never in the same round", "node", "frames", 32),
    ],
)
def test_what_was_not_measured_together_has_no_ratio(sentence, of, to, connections):
    assert report.ratio([*POINTS, point("frames", 9, 1.0)], of, to, connections, "per_s") is None, sentence


def test_session_run_is_compared_with_every_number_of_connections():
    points = [point("direct", 1, 200.0, connections=0), point("frames", 1, 50.0, connections=8)]
    assert report.ratio(points, "frames", "direct", 8, "per_s").rounds == (0.25,)


def test_the_document_tells_the_verdict_and_keeps_every_point():
    whole = json.loads(json.dumps(report.document(POINTS, {"cores": 2}, {"rounds": 4})))
    assert (whole["headline"]["median"], whole["headline"]["goal"], whole["headline"]["met"]) == (
        2.5,
        2.0,
        True,
    )
    assert (whole["machine"], whole["settings"]) == ({"cores": 2}, {"rounds": 4})
    assert len(whole["points"]) == len(POINTS)
    assert [(row["server"], row["per_s"]) for row in whole["summary"]] == [
        ("node", 8000.0),
        ("aiohttp", 3000.0),
    ]


def test_without_both_servers_there_is_no_headline():
    only = POINTS[:1]
    assert report.document(only, {}, {})["headline"] is None
    assert "wanted" not in report.text(only, {})


@pytest.mark.parametrize(("per_s", "verdict"), [(6000.0, "met"), (5999.0, "MISSED")])
def test_the_last_word_is_met_or_missed(per_s, verdict):
    text = report.text([point("node", 1, per_s), point("aiohttp", 1, 3000.0)], {"cores": 2})
    assert f"wanted >= 2.0: {verdict}" in text
    assert text.startswith("cores: 2")


def test_a_table_is_markdown_with_as_many_cells_in_each_row():
    rows = [line for line in report.text(POINTS, {}).splitlines() if line.startswith("|")]
    assert rows
    assert {line.count("|") for line in rows} == {5, 7}
    assert len({len(line) for line in rows if line.count("|") == 7}) == 1
