"""The command line decodes the whole corpus: a line a mail, no error, and what others find in these mails is found."""
import json
import os
import pathlib
import re
import subprocess
import sys

from stack import ROOT, binary

CORPUS = pathlib.Path(os.environ.get("POSTSTELLE_CORPUS", os.path.join(ROOT, "..", "shared", "corpus")))

# At least this much of what other projects assert of their sample mails. Where a report only tells a delay they do not
# agree with each other whether it is a bounce.
PARTS = {"from": 90, "to": 90, "subject": 90, "message_id": 90, "text": 90}
REPORTS = {"is_bounce": 95, "is_auto_reply": 100, "bounce_recipients": 100, "bounce_count": 90, "bounce_status": 85}


def check(results, kinds, rates):
    report = subprocess.run([sys.executable, str(CORPUS / "check.py"), str(results), *(a for k in kinds for a in ("--kind", k))],
                            capture_output=True, check=True, text=True).stdout
    print(report)
    for field, least in rates.items():
        row = next(line for line in report.splitlines() if line.split()[:1] == [field])
        rate = float(re.search(r"([\d.]+) ?%", row).group(1))
        assert rate >= least, row


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
    check(results, ["parse", "malformed"], PARTS)
    check(results, ["delivery-report", "auto-reply"], REPORTS)
    # The mails of the other kinds are people's, but for one bounce among them.
    reports = {c["id"] for c in map(json.loads, (CORPUS / "expected.jsonl").read_text().splitlines())
               if c["kind"] in ("delivery-report", "auto-reply")}
    machines = {line["id"] for line in lines if "origin" in line and line["id"] not in reports}
    assert machines == {"ruby-mail/raw-email-with-mimepart-without-content-type"}
