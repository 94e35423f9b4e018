"""docs/dialog.md goes through every requirement of the dialog, and each test that it names exists and is run."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in (ROOT / "docs/dialog.md").read_text().splitlines()
        if re.match(r"\| [ABC]\d ", line)]
OPEN = {"B6"}


def test_every_requirement_has_a_row():
    assert [row[0].strip("| ") for row in ROWS] == (
        [f"A{i}" for i in range(1, 5)] + [f"B{i}" for i in range(1, 8)] + [f"C{i}" for i in range(1, 8)])


def test_each_named_test_exists_and_is_run():
    run = (ROOT / "tests/CMakeLists.txt").read_text()
    named = 0
    for row in ROWS:
        requirement = row[0].strip("| ")
        tests = re.findall(r"`(tests/[^`]+)`", row[-1])
        assert bool(tests) != (requirement in OPEN), f"{requirement}: name a test, or mark it as open"
        assert ("open:" in row[2]) == (requirement in OPEN), requirement
        for test in tests:
            path, function = test.split("::")
            assert re.search(rf"^def {function}\(", (ROOT / path).read_text(), re.M), f"{test} does not exist"
            assert path.removeprefix("tests/") in run, f"{path} is not run"
            named += 1
    assert named >= 18
