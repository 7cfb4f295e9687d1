"""``maskrcnn convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.progress import Progress

from maskrcnn.cli import SOME_UNREADABLE
from maskrcnn.cli.common import FORMAT_LIST, DataOptions, Json, print_json, say, talk
from maskrcnn.errors import counted

if TYPE_CHECKING:
    from maskrcnn.data.convert import Conversion
    from maskrcnn.data.formats.traits import Trait


def convert(
    data: Path,
    out: Path,
    *,
    to: Annotated[
        str | None,
        Parameter(help=f"Format to write: {FORMAT_LIST}. Default: by the suffix of OUT. A folder needs it."),
    ] = None,
    pictures: Literal["copy", "link", "none"] | None = None,
    polygons: Annotated[bool, Parameter(negative="")] = False,
    options: DataOptions | None = None,
    json: Json = False,
) -> int:
    """Write a data set in another format, and say what that format cannot hold.

    Exits with 0 if all images and annotations are written, as far as the format can hold them; with 3 if some were
    skipped because they cannot be read; and with 1, writing nothing, for any other fault.

    Parameters
    ----------
    data
        Annotations: a file or a folder of any format.
    out
        File or folder to write, which must not exist.
    pictures
        Copy the pictures, link to them, or leave them where they are. Default: copy if the format has a place for them.
        Beside a file, they go to images/.
    polygons
        COCO: write masks as polygons along the edges of pixels, for programs that cannot read runs. Masks with holes
        and crowd regions stay runs.
    json
        Print what was written, and what was lost, as one JSON object.
    """
    from maskrcnn.data.convert import checked_format
    from maskrcnn.data.convert import convert as write
    from maskrcnn.data.problem import LOSSES

    to = checked_format(out, to, pictures, polygons)
    opened = (options or DataOptions()).open(data)
    with Progress(console=talk, transient=True) as bar:
        task = bar.add_task("writing annotations", total=None)

        def set_done(n_done: int) -> None:
            bar.update(task, description="writing pictures", total=len(opened), completed=n_done)

        conversion = write(opened, out, to, pictures, polygons=polygons, on_picture=set_done)
    if json:
        print_json(
            {
                "source": str(data),
                "target": str(out),
                "format": conversion.format,
                "images": conversion.n_images,
                "instances": conversion.n_instances,
                "pictures": conversion.pictures,
                "runs": conversion.n_runs,
                "lost": {trait.name.lower(): n for trait, n in conversion.lost.items()},
                "left_out": conversion.left_out,
            }
        )
    else:
        _show(conversion)
    if opened.reading.exif == "ignore":
        say("masks fit the pictures as stored: read this data with --exif ignore, too")
    return SOME_UNREADABLE if any(problem.kind in LOSSES for problem in opened.problems) else 0


def _show(conversion: Conversion) -> None:
    from maskrcnn.data.formats.writable import describe_left_out

    verb = {"copy": "copied", "link": "linked", "none": "left where they are"}[conversion.pictures]
    say(
        f"{conversion.target}: {counted(conversion.n_images, 'image')} and "
        f"{counted(conversion.n_instances, 'instance')}, format "
        f"{conversion.format}; pictures are {verb}"
    )
    if conversion.n_runs:
        noun = "mask is" if conversion.n_runs == 1 else "masks are"
        say(f"{conversion.n_runs:,} {noun} written as runs: COCO's polygons have no holes, and crowd regions are runs")
    if conversion.left_out:
        say(describe_left_out(conversion.left_out, conversion.format))
    if conversion.lost:
        say(f"the format {conversion.format} cannot hold: " + ", ".join(map(_describe, conversion.lost.items())))


def _describe(loss: tuple[Trait, int]) -> str:
    from maskrcnn.data.formats.traits import OF_IMAGES, Trait

    trait, n = loss
    if trait == Trait.UNUSED_CLASSES:
        return f"{trait} ({n:,})"
    noun = "image" if trait in OF_IMAGES else "instance"
    return f"{trait} ({counted(n, noun)})"
