"""tuner's rules in other people's training loops: each module is a thin adapter of one framework, which it imports.

All are called OverfitStopping, and all do the same: they hand train and validation loss of each epoch to a
`tuner.Watch`, stop the training when that says so, and put the weights of its best epoch back in the end. What they
have in common is in `keeper`.
"""
