"""Says at the very end what was covered; only if nothing failed."""
COUNTS = {"started": 0, "valid": 0, "skipped": 0, "failed": 0}


def pytest_runtest_logreport(report):
    if report.outcome in ("skipped", "failed"):
        COUNTS[report.outcome] += 1


def pytest_unconfigure():
    if not COUNTS["failed"]:
        print(f"images started={COUNTS['started']} manifests valid={COUNTS['valid']} skipped={COUNTS['skipped']}", flush=True)
