"""A metric of one's own: of the two ways to be wrong, one is ten times as dear."""

import numpy as np

COST = {0: 10.0, 1: 1.0}  # of a tumour that is called harmless (class 0 is malignant), and of a false alarm


def saved(y, predicted):
    """Return what each example saves of the most that it can cost; tuner takes the mean, and its standard error."""
    cost = np.where(y == 0, COST[0], COST[1])
    # call it malignant where that is the cheaper of the two risks
    called = np.where(predicted[:, 0] * COST[0] > predicted[:, 1] * COST[1], 0, 1)
    return np.where(called == y, cost, 0.0) / max(COST.values())
