"""Rewrites a list of passing cases from what passes now. Lists only grow, unless --allow-shrink is given.

    python update_passing.py [--list passing|compiled|cuda] [--file ops_float32 ...] [--allow-shrink]
"""

import argparse
import sys

import runner


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", choices=sorted(runner.LISTS), default="passing")
    parser.add_argument("--file", action="append", help="only this file's cases; may be repeated")
    parser.add_argument("--allow-shrink", action="store_true", help="take out listed cases that no longer pass")
    options = parser.parse_args()
    listed = runner.read(options.list) or {}
    lost = []
    for file in options.file or runner.LISTS[options.list][0]:
        passed, failed = runner.run(options.list, file)
        before = listed.get(file, set())
        for index in sorted(before - passed):
            lost.append(f"{file}#{index}: {failed.get(index, 'no such case')}")
        listed[file] = passed if options.allow_shrink else passed | before
        print(f"{file:20s} {len(passed):5d} of {len(passed) + len(failed):5d} pass, {len(passed - before)} new", flush=True)
        runner.write(options.list, listed)
    for line in lost:
        print("no longer passes:", line)
    return 1 if lost and not options.allow_shrink else 0


if __name__ == "__main__":
    sys.exit(main())
