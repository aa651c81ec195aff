"""The page that ``jaxsal demo`` writes: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
img { width: 100%; height: auto; background: white; border-radius: 6px; }
figure { margin: 2rem 0; } figcaption { font-weight: 600; margin-bottom: .5rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .15rem 1.2rem .15rem 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.chance { font-style: italic; }
"""


class Picture(NamedTuple):
    """A figure of the page: what it shows, and the bytes of a PNG file."""

    what: str
    png: bytes


def demo(
    pictures: Sequence[Picture], measured: Mapping[str, tuple[float, float]], cover: float, right: int, count: int
) -> str:
    """The page as HTML.

    Args:
      pictures: figures in order.
      measured: method to the parts of its maps, and of their peaks, that are inside the object, in [0, 1]; best first.
      cover: the same for a uniform map.
      right: how many scenes the network classified right.
      count: how many scenes there are.
    """
    rows = "".join(_row(name, *parts) for name, parts in measured.items())
    figures = "".join(_figure(picture, len(measured)) for picture in pictures)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>jaxsal demo</title><style>{_STYLE}</style></head><body>
<h1>jaxsal demo</h1>
<p>Generated scenes with two textured objects each, classified by the network that comes with jaxsal; it names the
larger object in {right} of {count}. Each figure explains one object: its box is drawn solid, the other's dashed. A map
should move when the other class is asked for. Those of Eigen-CAM, Signature and FEM do not: they show what stands out
in the layer, whatever the class.</p>
<h2>What is inside the object</h2>
<p>The true pixels of every object are known. Inside: the part of a heatmap's positive values on the explained object.
Peak: how often its largest value is. Means over {2 * count} objects; edges of coarse maps spill over small objects.</p>
<table><thead><tr><th scope="col">method</th><th scope="col" class="number">inside</th>
<th scope="col" class="number">peak</th></tr></thead>
<tbody>{rows}{_row("a uniform map", cover, cover, "chance")}</tbody></table>
<h2>Figures</h2>
{figures}
</body></html>
"""


def _row(name: str, inside: float, peak: float, kind: str = "") -> str:
    cells = f'<td>{html.escape(name)}</td><td class="number">{inside:.0%}</td><td class="number">{peak:.0%}</td>'
    return f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>"


def _figure(picture: Picture, methods: int) -> str:
    what = html.escape(picture.what)
    alt = f"The scene and heatmaps of {methods} methods over it. {what} is explained; its true box is drawn solid."
    data = base64.b64encode(_compressed(picture.png)).decode()
    return f'<figure><figcaption>{what}</figcaption><img alt="{alt}" src="data:image/jpeg;base64,{data}"></figure>\n'


def _compressed(png: bytes) -> bytes:
    """The picture as JPEG, a fifth of the size; the PNG files lie beside the page."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
