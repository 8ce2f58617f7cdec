"""A small notebook that keeps every rule; tests run it, and break it in one place at a time."""

from __future__ import annotations

from pathlib import Path

SCRIPT = """\
# %% [markdown]
# # 42 · An example
#
# **Question:** What does a notebook look like?
#
# **You will be able to:**
#
# - add two numbers
# - draw a line
#
# **Prerequisites:** none
#
# **Minutes:** 1 on two CPU cores; 2 to teach
#
# **Reads:** nothing
#
# **Writes:** two numbers

# %% tags=["parameters"]
epochs: int = 3  # summands
seed: int = 0  # of nothing
data: str = ""  # folder of a feature store; empty is Soundstage
factor: float = 1.5  # of the line
seeds: list[int] = [0, 1]  # of nothing, several times

# %% tags=["setup"]
import matplotlib.pyplot as plt

from avadclip_lite.config import make_config
from avadclip_lite.experiments.metrics import record
from avadclip_lite.experiments.parameters import check_parameters

check_parameters(globals())

# %% [markdown]
# We add, because a sum of ones is easily checked by hand: $1 + 1 = 2$.

# %%
total = sum([1] * epochs)
record("events", total, dataset="ones", seed=seed, config=make_config(seed=seed))
print(total, object() is not None)

# %% [markdown]
# A line is the simplest picture that a figure can show, and here it is.

# %% tags=["main-figure"]
# A line that rises, as lines in examples do
plt.plot([0, 1], [0, factor])
plt.show()

# %% [markdown]
# ### Exercise 1
#
# *2 minutes, easy.* Write a function that gives the double of a number.

# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def double(x):
    # BEGIN SOLUTION
    # Stumbles: the double is taken for the square, which is the same at two
    # and at zero.
    return 2 * x
    # END SOLUTION

# %% tags=["check"]
assert double(2) == 4, "twice two is four"

# %% [markdown]
# ### Exercise 2
#
# *3 minutes, hard.* Write a function that gives the half of a number.

# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def half(x):
    # BEGIN SOLUTION
    # Stumbles: a whole-number division loses the half
    return x / 2
    # END SOLUTION

# %% tags=["check"]
assert half(2) == 1, "half of two is one"

# %% [markdown]
# ## Recap
#
# - add two numbers: three ones made three, as they should
# - draw a line: it rose from zero to the factor
"""


def write_script(folder: Path, name: str = "42_example", text: str = SCRIPT) -> Path:
    """The percent script in ``folder``, beside the configuration that pairs it."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"{name}.py"
    script.write_text(text.replace("# # 42", f"# # {name[:2]}"), encoding="utf-8")
    return script
