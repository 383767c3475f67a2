"""Where the places of a crop lie in its image."""

from __future__ import annotations

import torch
from torch import Tensor

from contralex.lookup.view import View


def locate_places(view: View, grid: tuple[int, int]) -> Tensor:
    """(B, P, 2) the row and the column of the middle of each place, in pixels of the image, as float32.

    ``view`` has ``boxes`` (B, 4) and ``flipped`` (B,), as the core's crops make them: a place on the left of a crop
    that was mirrored is on the right in the image. ``grid``: the rows and the columns of places. (VICRegL's code, which
    mirrors the grid only where it is asked to: transforms.py, ``_location_to_NxN_grid``.)
    """
    rows, columns = grid
    top, left, height, width = view.boxes.float().unsqueeze(2).unbind(1)  # (B, 1) each
    down = (torch.arange(rows, device=top.device) + 0.5) / rows
    right = (torch.arange(columns, device=top.device) + 0.5) / columns
    row = top + height * down  # (B, rows)
    column = left + width * torch.where(view.flipped.unsqueeze(1), 1 - right, right)  # (B, columns)
    row, column = row.unsqueeze(2).expand(-1, -1, columns), column.unsqueeze(1).expand(-1, rows, -1)
    return torch.stack([row, column], dim=3).flatten(1, 2)
