"""Every method names the roles that it serves, and docs/access.md has the table that follows from it."""
import pathlib

from access import methods
from stack import ROLES

TEXT = (pathlib.Path(__file__).resolve().parents[2] / "docs/access.md").read_text()


def table():
    rows = ["| method | " + " | ".join(ROLES) + " |", "| --- |" + " --- |" * len(ROLES)]
    for m in methods():
        marks = " | ".join("yes" if role in m.served else "" for role in ROLES)
        rows.append(f"| `{m.package.removeprefix('poststelle.')}.{m.service}/{m.name}` | {marks} |".replace("  |", " |"))
    return "\n".join(rows)


def test_no_method_is_without_a_role():
    silent = [f"{m.package}.{m.service}/{m.name}" for m in methods() if not m.named]
    assert silent == [], "give each of them `option (poststelle.auth.v1.allow) = ROLE_…;`, or nobody may call it"
    assert len(methods()) >= 21


def test_no_method_names_a_role_that_another_one_implies():
    for m in methods():
        people = [role for role in m.named if role in ("viewer", "operator", "admin")]
        assert len(people) <= 1, f"{m.name}: the lowest of {people} is enough"


def test_people_never_read_passwords():
    assert [m.served for m in methods() if m.service == "CredentialService"] == [["service"]]


def test_the_table_is_that_of_the_protos():
    assert table() in TEXT, "docs/access.md should have this table:\n" + table()
