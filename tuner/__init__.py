"""tuner: search hyperparameters and regularization together, and stop networks from overfitting."""

__version__ = "0.1.0"
