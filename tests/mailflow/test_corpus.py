"""The command line decodes the whole corpus: a line a mail, no error, and what others find in these mails is found."""
import json
import os
import pathlib
import re
import subprocess
import sys

from stack import ROOT, binary

CORPUS = pathlib.Path(os.environ.get("POSTSTELLE_CORPUS", os.path.join(ROOT, "..", "shared", "corpus")))


def test_rates(tmp_path):
    files = sorted(str(p) for p in (CORPUS / "data").rglob("*.eml"))
    assert len(files) > 400, f"no sample mails in {CORPUS}; set POSTSTELLE_CORPUS"
    done = subprocess.run([binary("poststelle"), "message", "parse", "--jsonl", "--root", str(CORPUS / "data"), *files],
                          capture_output=True, check=True)
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert len(lines) == len(files)
    assert [line for line in lines if "error" in line] == []
    results = tmp_path / "results.jsonl"
    results.write_bytes(done.stdout)
    report = subprocess.run([sys.executable, str(CORPUS / "check.py"), str(results), "--kind", "parse", "--kind", "malformed"],
                            capture_output=True, check=True, text=True).stdout
    print(report)
    for field in ("from", "to", "subject", "message_id", "text"):
        row = next(line for line in report.splitlines() if line.split()[:1] == [field])
        rate = float(re.search(r"([\d.]+) ?%", row).group(1))
        assert rate >= 90, row
