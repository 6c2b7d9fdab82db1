"""State vectors that are read from places alone know nothing that the rest of the picture shows."""

import numpy as np
import torch

from understudy.configs.spec import STATE
from understudy.world_models.blocks import PictureMap, as_floats
from understudy.world_models.reader import Reader

from .conftest import SIDE, draw

SCALE = {STATE: ((50.0, 50.0), (25.0, 25.0))}
MAPS = {STATE: PictureMap(high=(100, 100))}


def made(from_places: bool) -> Reader:
    torch.manual_seed(0)
    return Reader(3, (SIDE, SIDE), SCALE, MAPS, keypoints=8, features=32, from_places=from_places)


def shown(dots: np.ndarray, light: np.ndarray) -> torch.Tensor:
    """Pictures of dots (N, 2), 0..100, on grounds whose brightness (N,) is 0..1."""
    pictures = np.stack([draw(place, np.array([-50.0, -50.0])) for place in dots]).astype(float)
    return as_floats(torch.from_numpy((pictures * (0.6 + 0.4 * light[:, None, None, None])).astype(np.uint8)[:, None]))


def taught(reader: Reader, pictures: torch.Tensor, dots: np.ndarray) -> Reader:
    wanted, optimizer = {STATE: torch.from_numpy(dots.astype(np.float32))}, torch.optim.AdamW(reader.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        some = torch.randint(len(dots), (24,), generator=generator)
        loss = reader.loss(*reader(pictures[some]), {STATE: wanted[STATE][some]})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return reader.eval()


def test_a_place_is_read_where_the_light_no_longer_tells_it():
    """In training the ground is as bright as the dot is far to the right, in the test it is not."""
    rng = np.random.default_rng(0)
    dots, fresh = rng.uniform(12, 88, (200, 2)), rng.uniform(12, 88, (100, 2))
    pictures, others = shown(dots, dots[:, 0] / 100), shown(fresh, rng.random(100))
    off = {}
    for from_places in (False, True):
        reader = taught(made(from_places), pictures, dots)
        with torch.no_grad():
            read = reader.states(*reader(others))[STATE].numpy()
        off[from_places] = float(np.abs(read - fresh).mean())
    assert off[True] < 5 < off[False]  # of 100


def test_it_is_told_how_surely_each_place_is_found_and_nothing_else():
    reader = made(from_places=True)
    points, features = reader(torch.rand(4, 3, SIDE, SIDE))
    assert points.shape == (4, 8, 3) and features.shape == (4, 32)
    assert ((points[..., 2] > 0) & (points[..., 2] <= 1)).all()
    read = reader.states(points, features)[STATE]
    assert torch.equal(read, reader.states(points, features + 1)[STATE])
    assert made(from_places=False)(torch.rand(4, 3, SIDE, SIDE))[0].shape == (4, 8, 2)  # as older checkpoints have it
