"""scikit-learn: an estimator with partial_fit, trained until it overfits."""

from made_rows import rows
from sklearn.neural_network import MLPClassifier

from tuner.integrations.sklearn import OverfitStopping

model = OverfitStopping(MLPClassifier((64,), learning_rate_init=0.01), epochs=100, random_state=0).fit(*rows(200, 0))
print(model.watch_.reason)
print(f"accuracy on new rows: {model.score(*rows(1000, 1)):.3f}")
