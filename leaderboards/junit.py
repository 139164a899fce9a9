"""JUnit XML, as test reporters of CI systems read it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

from leaderboards.errors import one_line


@dataclass(frozen=True)
class Case:
    """One test.

    Attributes:
        name: Its name.
        failure: Why it failed.
        error: Why it could not be run.
        skipped: Why it was not run.
        text: More about it.
    """

    name: str
    failure: str | None = None
    error: str | None = None
    skipped: str | None = None
    text: str = ""


def junit(suite: str, cases: Sequence[Case], properties: dict[str, str]) -> bytes:
    """Return a report of one suite; texts of strangers lose what XML cannot hold."""
    ends = {end: [getattr(case, end) for case in cases] for end in ("failure", "error", "skipped")}
    counts = {
        "name": suite,
        "tests": str(len(cases)),
        "failures": str(sum(why is not None for why in ends["failure"])),
        "errors": str(sum(why is not None for why in ends["error"])),
        "skipped": str(sum(why is not None for why in ends["skipped"])),
        "time": "0",
    }
    root = ET.Element("testsuites")
    top = ET.SubElement(root, "testsuite", counts)
    listed = ET.SubElement(top, "properties")
    for name, value in properties.items():
        ET.SubElement(listed, "property", name=name, value=one_line(value))
    for i, case in enumerate(cases):
        named = {"classname": suite, "name": one_line(case.name), "time": "0"}
        element = ET.SubElement(top, "testcase", named)
        for end, whys in ends.items():
            if whys[i] is not None:
                kind = {} if end == "skipped" else {"type": suite}
                ET.SubElement(element, end, {"message": one_line(whys[i])} | kind)
        if case.text:
            lines = "\n".join(one_line(line) for line in case.text.splitlines())
            ET.SubElement(element, "system-out").text = lines
    ET.indent(root)
    data: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"
