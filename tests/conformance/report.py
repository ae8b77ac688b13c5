"""Reads the suite's JUnit reports, given as NAME=FILE: prints what failed, a line for each report, and
their sum. The counts are the suite's own; it skips what a registry may leave out and did."""

import sys
from xml.etree import ElementTree

# A suite that found little to check has shown little: both versions have more than 800 checks.
LEAST = 800

total = [0, 0, 0]
for argument in sys.argv[1:]:
    name, path = argument.split("=", 1)
    root = ElementTree.parse(path).getroot()
    suites = list(root.iter("testsuite"))
    number = lambda *kinds: sum(int(suite.get(kind, 0)) for suite in suites for kind in kinds)
    failed, skipped = number("failures", "errors"), number("skipped", "disabled")
    passed = number("tests") - failed - skipped
    for case in root.iter("testcase"):
        if case.get("status") not in ("passed", "skipped", "disabled"):
            print(f"FAIL  {name}: {case.get('name')}")
            print("      " + " ".join(case.itertext()).strip().replace("\n", "\n      ")[:3000])
            failed = max(failed, 1)
    if passed < LEAST:
        print(f"FAIL  {name}: only {passed} checks passed of at least {LEAST} that there are")
        failed += 1
    print(f"specification {name}: {passed} checks passed, {failed} failed, {skipped} skipped")
    total = [a + b for a, b in zip(total, (passed, failed, skipped))]
print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped")
sys.exit(total[1] > 0)
