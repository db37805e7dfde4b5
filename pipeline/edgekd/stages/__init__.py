"""Stages: thin functions from (recipe, finished inputs) to a folder of outputs.

Every module says what decides its result, so that a plan needs no torch:

* ``VERSION``: raised when the code gives another result for the same inputs;
* ``PACKAGES``: distributions whose version decides the result;
* ``config(recipe)``: the JSON that decides it (no paths, no times);
* ``inputs(recipe)``: names of the stages it reads;
* ``run(context)``: the work, writing into ``context.out``.
"""
