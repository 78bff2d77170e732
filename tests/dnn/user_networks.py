"""What users write behind `package.module:callable` cards: good and bad."""

import numpy as np
import torch


class Grid(torch.nn.Module):
    """A box per 8x8 cell, scored by a convolution."""

    def __init__(self, classes: int = 3, final: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.score = torch.nn.Conv2d(3, classes, 8, 8)
        self.final = final

    def forward(self, batch):
        scores = self.score(batch).sigmoid().flatten(2).mT
        rows, cols = batch.shape[2] // 8, batch.shape[3] // 8
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
        corner = 8.0 * torch.stack([x, y, x + 1, y + 1], dim=-1).reshape(-1, 4)
        boxes = corner + scores.mean(dim=2, keepdim=True)
        if self.final:
            best, label = scores.max(dim=2)
            return {"labels": label + 1, "scores": best, "boxes": boxes}
        return boxes, scores


def detector(classes: int = 3) -> torch.nn.Module:
    return Grid(classes)


def final_detector() -> torch.nn.Module:
    return Grid(final=True)


def segmenter() -> torch.nn.Module:
    torch.manual_seed(4)
    return torch.nn.Conv2d(3, 3, 3, padding=1)


class Plain:
    """NumPy only, one picture at a time, no gradient."""

    max_batch = 1

    def run(self, batch):
        assert len(batch) == 1
        with torch.no_grad():
            return [output.numpy() for output in Grid()(torch.from_numpy(batch))]


class Complete(Plain):
    def differentiable(self, device):
        return Grid().to(device).requires_grad_(False)


class Rounding(torch.nn.Module):
    def forward(self, batch):
        return (batch.detach().round(),)


class Talking(torch.nn.Module):
    def forward(self, batch):
        return "a car"


def nothing():
    return None


def failing():
    raise RuntimeError("no licence\nfound")


value = np.zeros(3)
