"""Functions of another module, which tests of tracing reach in several ways."""

import numpy
from numpy import zeros as make

LIMIT = 3
calls = 0


def filled(x):
    y = numpy.zeros(len(x))
    y[:] = x
    return y


def counted(x):
    global calls
    calls += 1
    return filled(x) * calls


def ping(x, n):
    y = make(x.shape)
    y[...] = x
    return pong(y, n - 1) if n else y


def pong(x, n):
    return ping(x * 2, n)


class Model:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return self.inner(x)

    def inner(self, x):
        y = numpy.empty_like(numpy.ones(len(x)))
        y[:] = x * self.scale
        return y


model = Model(3.0)
