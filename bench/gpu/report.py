#!/usr/bin/env python3
"""Writes the tables of docs/performance.md from the recorded results, between its two markers; the latest record of a case on a device counts.

    python bench/gpu/report.py [--results bench/gpu/results] [--document docs/performance.md] [--check]

--check changes nothing: exit status 1 when the document is not what the results say.
"""
import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- bench/gpu/report.py: from here", "<!-- bench/gpu/report.py: to here -->"
NOTHING = "Nothing has been measured on a GPU yet.\n"


def check(record, path):
    """Refuses a record without what the tables show."""
    missing = [key for key in ("case", "time", "commit", "ours", "twin", "ratio", "agree", "pass") if key not in record]
    if missing:
        raise ValueError(f"{path}: a record of {record.get('case', 'no case')} lacks {', '.join(missing)}")
    return record


def rate(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def summary_row(record):
    ours, twin = record["ours"], record["twin"]
    if "images_per_second" in ours:
        us, them = f"{rate(ours['images_per_second'])} images/s", f"{rate(twin['images_per_second'])} ({twin['variant']})"
    elif record["case"] == "optimizer":
        us, them = (" / ".join(f"{item['ms']:.2f}" for item in side["cases"]) + " ms" for side in (ours, twin))
        them += f" ({twin['variant']})"
    else:
        us, them = "see below", "ATen's own operations"
    worst = max(pair[0] for pair in record["agree"].values())
    state = f"within {worst:.1e}" if record["pass"] else "**they disagree**"
    return f"| `{record['case']}` | {us} | {them} | {record['ratio']:.2f} | {state} | {record['time'][:10]}, {record['commit']} |"


def kernel_rows(record):
    for item in record["ours"]["cases"]:
        yield (f"| {item['name']} | {item['us']:.0f} µs | {item['stock_us']:.0f} µs | {item['stock_us'] / item['us']:.2f} | "
               f"{item['bytes_per_second'] / 1e12:.2f} TB/s |")


def tables(results):
    text = ""
    for path in sorted(Path(results).glob("*.json")):
        content = json.loads(path.read_text())
        runs = [check(record, path) for record in content["runs"]]
        latest = {record["case"]: record for record in runs if not record["ours"].get("small")}
        if not latest:
            continue
        text += f"On one {content['device']}:\n\n| case | ours | PyTorch | ratio | results agree | when |\n| --- | --- | --- | --- | --- | --- |\n"
        text += "".join(summary_row(record) + "\n" for record in latest.values()) + "\n"
        if "kernels" in latest:
            text += "| kernel | ours | ATen | ratio | bytes it must move |\n| --- | --- | --- | --- | --- |\n"
            text += "".join(row + "\n" for row in kernel_rows(latest["kernels"])) + "\n"
    return text or NOTHING


def written(document, text):
    """The document with `text` between its markers."""
    begin, end = document.find(BEGIN), document.find(END)
    if begin < 0 or end < begin:
        raise ValueError(f"expected the markers\n{BEGIN} ... -->\n{END}")
    begin = document.index("\n", begin) + 1
    return document[:begin] + text.rstrip("\n") + "\n" + document[end:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=ROOT / "bench" / "gpu" / "results")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "performance.md")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    try:
        old = arguments.document.read_text()
        new = written(old, tables(arguments.results))
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    if arguments.check:
        if new != old:
            print(f"report: {arguments.document} is not what the results say; run bench/gpu/report.py", file=sys.stderr)
        return int(new != old)
    if new != old:
        arguments.document.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
