"""Deals images out to splits so that every class is shared out in the splits' proportions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stratify(images: int, held: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """The split of every image, by iterative stratification.

    Sechidis, Tsoumakas and Vlahavas (2011), "On the stratification of multi-label data": the class
    with the fewest images left is dealt out first, each of its images to the split that is
    shortest of this class, on a tie to the one that is shortest of images. Images without a class
    come last. So of the rarest class every split gets its share to within less than one image
    where there are two splits, and classes that share images with rarer ones come close to it.

    Args:
        images: How many there are, N.
        held: (M, 2) integers: image and class of every pair of an image and a class that it
            holds, each pair once, classes counted from 0.
        shares: Of the splits; they add up to 1.
        seed: Of the order in which images are dealt out.

    Returns:
        (N,) indices into `shares`.
    """
    order = np.random.default_rng(seed).permutation(images)
    rank = np.empty(images, dtype=np.int64)
    rank[order] = np.arange(images)
    held = held[np.argsort(rank[held[:, 0]], kind="stable")]
    classes = int(held[:, 1].max()) + 1 if len(held) else 0
    left = np.bincount(held[:, 1], minlength=classes)
    wanted = [[share * int(count) for count in left] for share in shares]
    room = [share * images for share in shares]
    holders = _grouped(held[:, 0], held[:, 1], classes)
    labels = _grouped(held[:, 1], held[:, 0], images)
    chosen = np.full(images, -1, dtype=np.int64)

    def deal(image: int, split: int) -> None:
        chosen[image] = split
        room[split] -= 1
        for label in labels[image]:
            wanted[split][label] -= 1
            left[label] -= 1

    while left.any():
        rarest = int(np.where(left > 0, left, images + 1).argmin())
        for image in holders[rarest]:
            if chosen[image] < 0:
                deal(image, max(range(len(room)), key=lambda s: (wanted[s][rarest], room[s])))
    for image in order[chosen[order] < 0]:
        deal(int(image), max(range(len(room)), key=lambda s: room[s]))
    return chosen


def _grouped(values: np.ndarray, groups: np.ndarray, number: int) -> list[list[int]]:
    """The values of each group, in their order."""
    if not number:
        return []
    by_group = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, minlength=number))[:-1]
    return [part.tolist() for part in np.split(values[by_group], ends)]
