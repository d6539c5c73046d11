# SPDX-License-Identifier: Apache-2.0
"""Sums up the reports of ctest. Prints skips and failures; the last line is `N passed, N failed`.

Usage: summary.py NAME=REPORT.xml...
       summary.py --self-test

A test program counts with the cases that it reports itself, any other test as one. A test that
crashed, ran out of time or could not start is a failure, and so is a report that is missing or empty.
"""
import re
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

COUNT = re.compile(r"^(\d+) passed, (\d+) failed$", re.M)
SKIP = re.compile(r"^.*\bskipped: .*$", re.M)


def count_test(test):
    """(passed, failed) of one <testcase>."""
    reported = COUNT.findall(test.findtext("system-out") or "")
    passed, failed = (int(n) for n in reported[-1]) if reported else (0, 0)
    status = test.get("status")
    if status == "disabled" or test.find("skipped") is not None and status != "notrun":
        return 0, 0
    if status == "run" and test.find("failure") is None:
        return (passed, 0) if reported and failed == 0 else (1, 0)  # red as planned counts as one
    return passed, max(failed, 1)


def sum_report(name, path):
    """(passed, failed) of one report; prints what a reader should know."""
    try:
        tests = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        print(f"{name}: failed before its tests could run")
        return 0, 1
    if not tests:
        print(f"{name}: there are no tests")
        return 0, 1
    total_passed = total_failed = 0
    for test in tests:
        passed, failed = count_test(test)
        total_passed += passed
        total_failed += failed
        for line in dict.fromkeys(SKIP.findall(test.findtext("system-out") or "")):
            print(f"{name}: {test.get('name')}: {line.strip()}")
        if failed:
            print(f"{name}: {test.get('name')}: FAILED")
    print(f"{name}: {total_passed} tests passed, {total_failed} failed")
    return total_passed, total_failed


CASES = [  # what ctest writes for one test, what it must count as
    ('<testcase name="a" status="run"><system-out>x\n7 passed, 0 failed\n</system-out></testcase>', (7, 0)),
    ('<testcase name="a" status="run"><system-out>no count</system-out></testcase>', (1, 0)),
    ('<testcase name="red as planned" status="run"><system-out>1 passed, 1 failed\n</system-out></testcase>', (1, 0)),
    ('<testcase name="a" status="fail"><failure/><system-out>5 passed, 2 failed\n</system-out></testcase>', (5, 2)),
    ('<testcase name="crash" status="fail"><failure/><system-out>half a li</system-out></testcase>', (0, 1)),
    ('<testcase name="crash at exit" status="fail"><failure/><system-out>5 passed, 0 failed\n</system-out></testcase>', (5, 1)),
    ('<testcase name="no program" status="notrun"><skipped message="Unable to find executable"/></testcase>', (0, 1)),
    ('<testcase name="off" status="disabled"/>', (0, 0)),
]


def self_test():
    bad = [text for text, expected in CASES if count_test(ElementTree.fromstring(text)) != expected]
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as report:
        if sum_report("empty", report.name) != (0, 1):
            bad.append("an empty report must count as a failure")
        report.write("<testsuite></testsuite>")
        report.flush()
        if sum_report("no tests", report.name) != (0, 1):
            bad.append("a report without tests must count as a failure")
    print(*(f"counted wrongly: {text}" for text in bad), sep="\n")
    return 1 if bad else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    sums = [sum_report(*argument.split("=", 1)) for argument in sys.argv[1:]]
    failed = sum(f for _, f in sums)
    print(f"{sum(p for p, _ in sums)} passed, {failed} failed")
    return 1 if failed or not sums else 0


sys.exit(main())
