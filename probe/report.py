"""What `bus probe` found, as text and as a page of its own with plots."""

from __future__ import annotations

import html
import io
from typing import Any


def text(document: dict[str, Any]) -> str:
    """A table for the terminal."""
    items = document["items"]
    sent = f"{document['messages']} messages of {document['sessions']} sessions, {items} private items"
    lines = [f"{sent}, {document['bytes_scanned']:,} bytes scanned"]
    lines += [f"  {name:52} {count:6} of {items}" for name, count in document["observers"].items()]
    for name, told in document["guess"].items():
        for what, each in told.items():
            if each:
                lines.append(f"  {what} by size, {name:22} {each['guessed']:6.1%}, by chance {each['chance']:.1%}")
    return "\n".join(lines)


def page(document: dict[str, Any], failed: list[str]) -> str:
    """One HTML document without anything outside it. Needs matplotlib (the extra `plot`)."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{count}<td>{count / document['items']:.1%}"
        for name, count in document["observers"].items()
    )
    verdict = "".join(f"<li>{html.escape(each)}" for each in failed) or "<li>every claim holds"
    channels = ", ".join(f"{name}: {count}" for name, count in document["channels"].items())
    return f"""<!doctype html><meta charset="utf-8"><title>bus probe</title>
<style>body{{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}td{{padding:.2em 1em .2em 0}}
svg{{width:100%;height:auto}}</style>
<h1>Who can read what agents tell each other</h1>
<p>{document["messages"]} messages of {document["sessions"]} sessions ({channels}), {document["items"]} private items,
{document["bytes_scanned"]:,} bytes of the broker's disks scanned.</p>
<ul>{verdict}</ul>
<table><tr><th align=left>observer<th align=left>items<th align=left>share{rows}</table>
{_plot(document)}
<p>A size tells channel or source as far as its bar stands above chance, always saying the commonest.</p>"""


def _plot(document: dict[str, Any]) -> str:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    names = list(document["observers"])
    left.barh(names, [count / document["items"] for count in document["observers"].values()], color="tab:red")
    left.set_xlim(0, 1)
    left.set_xlabel("share of private items that can be read")
    left.invert_yaxis()
    bars = [
        (f"{what}, {name}", each) for name, told in document["guess"].items() for what, each in told.items() if each
    ]
    places = range(len(bars))
    right.barh([place - 0.2 for place in places], [each["guessed"] for _, each in bars], 0.38, label="by size")
    right.barh(
        [place + 0.2 for place in places], [each["chance"] for _, each in bars], 0.38, color="0.7", label="chance"
    )
    right.set_yticks(list(places), [name for name, _ in bars])
    right.set_xlim(0, 1)
    right.set_xlabel("share that is guessed right")
    right.invert_yaxis()
    right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    out = io.StringIO()
    figure.savefig(out, format="svg")
    plt.close(figure)
    return out.getvalue()[out.getvalue().index("<svg") :]
