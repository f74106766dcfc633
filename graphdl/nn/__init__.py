"""Layers: how parameters are made (`init`) and what is computed with them (`apply`).

A layer is an immutable description. It holds no arrays: `init` returns the parameters as a plain
tree of NumPy arrays, `apply` is a pure function of that tree and the input. The same `apply` runs
on NumPy arrays and inside `gd.compile`, `gd.grad` and the other transforms.

>>> import numpy as np
>>> import graphdl as gd
>>> model = gd.nn.Sequential([gd.nn.Dense(128, activation="relu"), gd.nn.Dense(10)])
>>> params = model.init(0, (64,))
>>> {name: kernel["kernel"].shape for name, kernel in params.items()}
{'dense': (64, 128), 'dense_1': (128, 10)}
>>> model.apply(params, np.zeros((32, 64), np.float32)).shape
(32, 10)
"""

from graphdl.nn.convolution import (
    Conv1D,
    Conv2D,
    Conv3D,
    ConvTranspose1D,
    ConvTranspose2D,
    ConvTranspose3D,
    DepthwiseConv1D,
    DepthwiseConv2D,
)
from graphdl.nn.dense import Activation, Dense, Embedding, Flatten
from graphdl.nn.layer import ACTIVATIONS, INITIALIZERS, Layer
from graphdl.nn.noise import Dropout, GaussianNoise
from graphdl.nn.normalisation import BatchNorm, GroupNorm, LayerNorm
from graphdl.nn.pooling import (
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    GlobalAvgPool,
    GlobalMaxPool,
    LocalResponseNorm,
    MaxPool,
    Resize,
    Upsample,
)
from graphdl.nn.sequential import Sequential, parameter_count
from graphdl.numpy_functions import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    conv,
    conv_transpose,
    gelu,
    global_avg_pool,
    global_max_pool,
    local_response_norm,
    log_softmax,
    logsumexp,
    max_pool,
    one_hot,
    relu,
    resize,
    sigmoid,
    silu,
    softmax,
    softplus,
)

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "Activation",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "BatchNorm",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "ConvTranspose1D",
    "ConvTranspose2D",
    "ConvTranspose3D",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianNoise",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "LocalResponseNorm",
    "MaxPool",
    "Resize",
    "Sequential",
    "Upsample",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "conv",
    "conv_transpose",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "local_response_norm",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "one_hot",
    "parameter_count",
    "relu",
    "resize",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
]
