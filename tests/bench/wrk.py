"""wrk as the load: a script that checks every answer, and its result as numbers.

wrk counts a wrong body as a success and a refused connection as an error of its own, so both
are asked for here. It knows HTTP's address of a server and nothing else of it.
"""

import json
import resource
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.workload import WrongAnswer

TIMEOUT_S: Final = 5
_MARK: Final = "RESULT "


class Load(NamedTuple):
    """What a load generator saw. `cpu_s` is what it cost itself."""

    answers: int
    seconds: float
    p50_us: float
    cpu_s: float


#: wrk hands each answer to `response` once the function exists: status and body are compared with all of them.
_SCRIPT: Final = """\
wrk.method = "POST"
wrk.body = [==[@QUESTION@]==]
wrk.headers["Content-Type"] = "application/json"
local expected = [==[@ANSWER@]==]
local threads = {}
wrong, sample = 0, ""
function setup(thread) threads[#threads + 1] = thread end
function response(status, headers, body)
  if status ~= 200 or body ~= expected then
    if wrong == 0 then sample = status .. " " .. body:sub(1, 300) end
    wrong = wrong + 1
  end
end
function done(summary, latency, requests)
  local wrong, sample = 0, ""
  for _, thread in ipairs(threads) do
    wrong = wrong + thread:get("wrong")
    if sample == "" then sample = thread:get("sample") end
  end
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"answers":%d,"us":%d,"p50_us":%f,"wrong":%d,"failed":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), wrong,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
  if wrong > 0 then io.write("SAMPLE ", sample, "\\n") end
end
"""


def script(question: bytes, answer: bytes) -> str:
    """The Lua script that asks `question` and takes `answer` only."""
    told = {"@QUESTION@": question.decode(), "@ANSWER@": answer.decode()}
    if any("]==]" in value for value in told.values()):
        raise ValueError("a body that ends a long string of Lua can't be put into the script")
    text = _SCRIPT
    for mark, value in told.items():
        text = text.replace(mark, value)
    return text


def parse(printed: str, cpu_s: float, who: str) -> Load:
    """The script's result line. Raises WrongAnswer if any answer was wrong, or none came."""
    found = [line.removeprefix(_MARK) for line in printed.splitlines() if line.startswith(_MARK)]
    if len(found) != 1:
        raise WrongAnswer(f"wrk did not finish against {who}; it said {printed[-500:]!r}")
    told = json.loads(found[0])
    if told["wrong"] or told["failed"] or not told["answers"]:
        sample = next((line for line in printed.splitlines() if line.startswith("SAMPLE ")), "")
        raise WrongAnswer(
            f"{who}: {told['wrong']} wrong answers and {told['failed']} errors beside {told['answers']} answers"
            f" {sample[:400]}"
        )
    return Load(told["answers"], told["us"] / 1e6, told["p50_us"], cpu_s)


def run(who: str, url: str, script_path: Path, connections: int, seconds: int) -> Load:
    """One closed loop of `connections` for `seconds`. Raises WrongAnswer."""
    before_s = _children_cpu_s()
    done = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            f"--timeout={TIMEOUT_S}s",
            "-s",
            script_path,
            url,
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 4 * TIMEOUT_S,
        check=False,
    )
    return parse(done.stdout + done.stderr, _children_cpu_s() - before_s, who)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
