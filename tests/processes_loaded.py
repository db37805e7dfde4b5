"""Imported once by the process that training processes are forked from."""

import atexit
import gc
import os

import lightning_fabric  # noqa: F401
import numpy  # noqa: F401
import pytest  # noqa: F401
import torch._dynamo  # noqa: F401

import edgekd.engine.runner
import edgekd.stages.distill  # noqa: F401

gc.freeze()  # a collection in a child would copy every page
atexit.register(os._exit, 0)  # to take torch down module by module takes a second
