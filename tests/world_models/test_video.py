"""A world model of a world whose dynamics are known follows the actions that it is told, and no others."""

import numpy as np
import torch
from understudy.policies.learning.checkpoint import load_model

from .conftest import SIDE, episode


def test_it_follows_its_actions(dots_run):
    model, _ = load_model(dots_run, "world")
    assert model.horizon == 4
