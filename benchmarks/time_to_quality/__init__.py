"""How long tuner and its peers take to a given quality on real data; see `__main__`."""

import os

# Before any of the libraries is imported, whoever starts a way: one thread each, no GPU, Keras on torch.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
os.environ["KERAS_BACKEND"] = "torch"
