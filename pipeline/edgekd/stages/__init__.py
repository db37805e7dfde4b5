"""Stages: functions from a recipe and finished inputs to a folder of outputs.

Every module says what decides its result, so that a plan needs no torch:

* ``VERSION``: raised when the code gives another result for the same inputs;
* ``PACKAGES``: distributions whose versions decide the result;
* ``config(recipe, name)``: the JSON that decides it (no paths, no times);
* ``run(context)``: the work, writing into ``context.out``.

Which stages a recipe has, and what each reads, is the plan's business.
"""
