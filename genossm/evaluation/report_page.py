"""A page that stands alone: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STYLE = """
:root { color-scheme: light; --ink: #222; --quiet: #666; --line: #ddd; --accent: #0072B2; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; padding: 1.5rem; max-width: 62rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 48rem; }
.lead { color: var(--quiet); }
.verdict { border-left: 4px solid var(--accent); padding: .4rem .8rem; background: #f3f8fc; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
figure { margin: .5rem 0; flex: 1 1 24rem; min-width: 0; }
figcaption { font-size: .85rem; color: var(--quiet); }
svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .85rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, monospace; }
"""


@dataclass(frozen=True)
class Picture:
    """svg: an `<svg>` element.   caption: what to see in it."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """One heading of the page. Text is plain and is escaped here; `verdict` is the sentence to take away."""

    title: str
    text: Sequence[str] = ()
    verdict: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Sequence[Picture] = ()

    def render(self) -> str:
        parts = [f"<h2>{html.escape(self.title)}</h2>"]
        parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in self.text]
        if self.verdict:
            parts.append(f'<p class="verdict">{html.escape(self.verdict)}</p>')
        if self.rows:
            parts.append(_table(self.header, self.rows))
        if self.pictures:
            drawn = "".join(
                f"<figure>{picture.svg}<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
                for picture in self.pictures
            )
            parts.append(f'<div class="figures">{drawn}</div>')
        return "\n".join(parts)


def render_page(title: str, lead: str, sections: Sequence[Section], facts: Mapping[str, str]) -> str:
    """The whole HTML page; `facts` (provenance) stand at its foot."""
    body = "\n".join(section.render() for section in sections)
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{html.escape(title)}</h1>\n<p class="lead">{html.escape(lead)}</p>\n{body}\n'
        f"<h2>How this page was made</h2>\n<dl>{listed}</dl>\n</body>\n</html>\n"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
