"""A report as one HTML page that needs nothing else; each figure is a link to its proofs."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

MAX_ROWS: Final = 200
"""Of a table; report.json has them all."""
STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.1rem;margin-top:2.2rem;border-top:1px solid #d0d7de;padding-top:1rem}
table{border-collapse:collapse;width:100%;font-size:.85rem}td,th{text-align:left;padding:.25rem .6rem .25rem 0;
border-bottom:1px solid #eaeef2;vertical-align:top;overflow-wrap:anywhere}td:last-child,th:last-child{text-align:right}
.value{font-size:1.6rem;font-weight:600}.clause,.note{color:#59636e;font-size:.85rem}.bad{color:#b42318}.good{color:#1a7f37}
"""


def when(at: int) -> str:
    """ms since 1970 as a reader expects it."""
    return dt.datetime.fromtimestamp(at / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def gaps(document: dict[str, Any]) -> str:
    """What is said of completeness, in a sentence."""
    told = document["gaps"]
    if told["problems"]:
        return f"{len(told['problems'])} gaps or changes were found"
    return (
        f"None: {told['positions']} input positions of {len(told['inputs'])} partitions are covered without a gap, "
        f"and every one of {told['leaves']} hops is under a signed checkpoint"
        + (f"; {told['retired']} of them were retired before, and are in no figure" if told["retired"] else "")
    )


def page(document: dict[str, Any]) -> str:
    """The page of a report's document."""
    return "\n".join(_parts(document)) + "\n"


def _parts(document: dict[str, Any]) -> Iterator[str]:
    title = f"{document['framework'].upper()} report"
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    yield f"<h1>{title}</h1><p>Deployment {document['deployment']}"
    yield f"<br>{when(document['begin'])} to {when(document['end'])}"
    if document["person"]:
        yield f"<br>Person {html.escape(document['person'])}"
    yield f"<br>Made {when(document['made_at'])}. Each figure links to the proofs of the hops that it counts."
    yield "<p class=note>Clauses say towards what a figure is evidence; whether they are met is for the auditor to say."
    told = document["gaps"]
    yield f"<h2>Gaps</h2><p class=clause>{html.escape(told['clause'])}</p>"
    yield f"<p class={'bad' if told['problems'] else 'good'}>{html.escape(gaps(document))}</p>"
    yield from (f"<p class=bad>{html.escape(each)}</p>" for each in told["problems"][:MAX_ROWS])
    if told["witnesses"]["named"]:
        held = told["witnesses"]
        yield f"<p>{held['leaves']} hops are co-signed by {held['quorum']} of {held['named']} witnesses.</p>"
    for figure in document["figures"]:
        yield f"<h2 id={figure['name']}>{html.escape(figure['title'])}</h2>"
        yield f"<p class=clause>{html.escape(figure['clause'])}</p>"
        value = f"<span class=value>{figure['value']}</span>"
        yield f"<p>{_link(figure['proofs'], value)} {_shown(figure)}</p>"
        yield from _table([*figure["columns"], "hops"], figure["rows"])
    if document["events"] is not None:
        told = document["events"]
        yield "<h2 id=events>Keys that were given out, and records that were opened</h2>"
        yield f"<p class=clause>{html.escape(told['clause'])}</p>"
        value = f"<span class=value>{told['value']}</span>"
        yield f"<p>{_link(told['proofs'], value)} events of bus.issue, each signed by the issuer"
        yield from (f"<p class=bad>{told['wrong']} were not what it signed",) if told["wrong"] else ()
        yield from _table([*told["columns"], "events"], told["rows"])
    yield "<h2>Erasures</h2>"
    columns = ("domain", "epoch", "state", "erased_at", "effective", "waiting")
    rows = [[_cell(each, name) for name in columns] for each in document["erasures"]]
    yield from _table(columns, rows) if rows else ("<p>No epoch was erased.</p>",)


def _cell(row: dict[str, Any], name: str) -> str:
    value = row[name]
    return when(value) if name in ("erased_at", "effective") and value else str(value if value else "")


def _link(target: str, text: str) -> str:
    return f'<a href="{html.escape(target)}">{text}</a>' if target else text


def _shown(figure: dict[str, Any]) -> str:
    if not figure["value"] or figure["proven"] == figure["value"]:
        return ""
    return f"the newest {figure['proven']} are proven in the file; all are named by leaf in report.json"


def _table(columns: Sequence[str], rows: Sequence[Iterable[Any]]) -> Iterator[str]:
    if not rows:
        return
    yield "<table><tr>" + "".join(f"<th>{html.escape(each)}</th>" for each in columns) + "</tr>"
    for row in rows[:MAX_ROWS]:
        yield "<tr>" + "".join(f"<td>{html.escape(str(each))}</td>" for each in row) + "</tr>"
    yield "</table>"
    if len(rows) > MAX_ROWS:
        yield f"<p class=note>{len(rows) - MAX_ROWS} rows more in report.json</p>"
