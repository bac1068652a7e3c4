"""An optimizer of one's own. Any class of torch.optim can be named as it is: torch.optim:RAdam."""

import torch


def nesterov(groups, config):
    """`groups` have params, lr and weight_decay; the rate of each step is tuner's to change."""
    return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
