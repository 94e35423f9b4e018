"""docs/life-of-a-mail.md names only files that exist and failpoints that the sources hold, and all of them."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/life-of-a-mail.md").read_text()


def named_failpoints():
    table = TEXT[TEXT.index("| failpoint |"):]
    return set(re.findall(r"^\| `([\w.]+)` \|", table, re.M))


def test_every_file_exists():
    files = re.findall(r"`((?:services|libs|tests|cli)/[\w./-]+\.\w+)`", TEXT)
    assert len(files) > 10
    assert [f for f in files if not (ROOT / f).exists()] == []


def test_the_failpoints_are_those_of_the_sources():
    sources = "".join(p.read_text() for p in (ROOT / "services/fetcher").glob("*.cc"))
    assert named_failpoints() == set(re.findall(r'Failpoint\("([\w.]+)"\)', sources))
    assert len(named_failpoints()) >= 8
