"""Keras 3, on any of its backends: a callback."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
from made_rows import rows

from tuner.integrations.keras import OverfitStopping

model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(2)])
model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
(x, y), validation = rows(100, 0), rows(100, 1)
stopping = OverfitStopping(probe=(x, y))  # train is measured as validation is
model.fit(x, y, batch_size=16, epochs=100, validation_data=validation, callbacks=[stopping], verbose=0)
print(stopping.watch.reason)
