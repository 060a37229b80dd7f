"""Boxes that overlap, directly or through others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.refine.blocks import union

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.refine.blocks import Box

__all__ = ["clusters"]


def clusters(boxes: Sequence[Box]) -> list[tuple[list[int], Box]]:
    """Group boxes so that those of different groups lie apart.

    Returns
    -------
    list of (members, box)
        Positions in `boxes`, ascending, and the box around them all. The boxes of groups do not overlap either.
    """
    groups: list[tuple[list[int], Box]] = [([number], box) for number, box in enumerate(boxes)]
    merged = True
    while merged:  # a box around a group may reach another group
        merged = False
        groups.sort(key=lambda group: group[1][0].start)
        waiting, done = groups, []
        open_groups: list[tuple[list[int], Box]] = []
        for members, box in waiting:
            done += [group for group in open_groups if group[1][0].stop <= box[0].start]
            open_groups = [group for group in open_groups if group[1][0].stop > box[0].start]
            mine, around = list(members), box
            apart = []
            for group in open_groups:
                if all(a.start < b.stop and b.start < a.stop for a, b in zip(group[1], around, strict=True)):
                    mine, around, merged = mine + group[0], union(around, group[1]), True
                else:
                    apart.append(group)
            open_groups = [*apart, (mine, around)]
        groups = done + open_groups
    return [(sorted(members), box) for members, box in sorted(groups, key=lambda group: min(group[0]))]
