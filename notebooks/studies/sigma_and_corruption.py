# %% [markdown]
# # Lab note · Sigma and corruption
#
# **Question:** Does the student's predicted variance know which snippets were spoilt, and does it
# learn anything at the released weight of 1e-8?
#
# **Prerequisites:** [07](../07_ukd.ipynb), which derives the loss and tests sigma on clean videos
#
# **Minutes:** 11 to read; 2 on two CPU cores
#
# **Reads:** the feature store (Soundstage unless you say otherwise), the teacher and the student
# that ship with it
#
# **Writes:** on other data trained detectors to the cache

# %% tags=["parameters"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
scale: str = "soundstage"  # how large, where no detector ships: soundstage or xd
seed: int = 0  # of what is spoilt and how, of fresh weights, and of trainings where none ship
device: str = "auto"  # where to compute: auto, cpu, cuda

# %% tags=["setup"]
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

from avadclip_lite.config import find_device, make_config
from avadclip_lite.dataset import TrainingSet
from avadclip_lite.encoders import load_text
from avadclip_lite.evaluate import roc_auc
from avadclip_lite.experiments.cache import train_or_load
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.model import build
from avadclip_lite.viz import plots
from avadclip_lite.viz.lesson import open_stage, shipped

plots.use_style()
check_parameters(globals())  # plain papermill hands lists over as text
store, where = open_stage(data), find_device(device)
teacher, student = shipped(store, "teacher"), shipped(store, "student")
if teacher is None:  # other data: train both
    how = {"scale": scale, "dim": store.dim, "seed": seed, "device": device}
    teacher = train_or_load(make_config(**how), store, progress=False).model
    settings = make_config(role="vision", **how)
    student = train_or_load(settings, store, teacher=teacher, progress=False).model
teacher, student = teacher.to(where).eval(), student.to(where).eval()

# %% [markdown]
# ## 1. Spoilt in steps
#
# UKD is meant for snippets whose picture or sound is bad: there the student should announce a large
# $\sigma$, so that they pull less. On clean videos 07 found an honest $\sigma$, which knew the size
# of errors. Here a quarter of the test snippets, drawn at random, is spoilt in the student's input,
# in steps from 0 (as it was) to 1:
#
# - **noise**: up to four standard deviations of each channel are added
# - **fade**: the feature shrinks to zero, as under a dying lamp
# - **swap**: the feature turns into that of a snippet of some other video: a clean picture, which
#   does not belong here
#
# The teacher's target stays that of the clean video. So we know which snippets are bad, and how
# wrong the student gets there.

# %%
test = store.indices("test")
test = test[store.snippets[test] <= student.max_snippets]  # whole, in one pass
bags = TrainingSet(store, test, student.settings)
batches = [bags.batch(index).to(where) for index in torch.arange(len(bags)).split(64)]
every = torch.cat([b.video[k, :n] for b in batches for k, n in enumerate(b.lengths)])  # (S, D)
spread, LEVELS = every.std(dim=0), (0.0, 0.25, 0.5, 0.75, 1.0)
SPOILT = {
    "noise": lambda x, level, other, noise: x + 4 * level * spread * noise,
    "fade": lambda x, level, other, noise: (1 - level) * x,
    "swap": lambda x, level, other, noise: (1 - level) * x + level * other,
}


@torch.no_grad()
def looked_at(kind, level, model=student):
    """Per snippet: mean log-variance announced, mean squared error made, and whether spoilt."""
    draw, found = torch.Generator().manual_seed(seed), []
    for batch in batches:
        shape = batch.video.shape
        hit = (torch.rand(shape[:2], generator=draw) < 0.25).to(where)
        other = every[torch.randint(len(every), shape[:2], generator=draw).to(where)]
        noise = torch.randn(shape, generator=draw).to(where)
        spoilt = SPOILT[kind](batch.video, level, other, noise)
        seen = torch.where(hit[..., None], spoilt, batch.video)
        output = model(replace(batch, video=seen))
        error = (teacher(batch).features - output.features).square().mean(dim=-1)
        inside, announced = output.mask, output.log_variance.mean(dim=-1)
        found.append([x[inside].cpu().numpy() for x in (announced, error, hit)])
    return [np.concatenate(x) for x in zip(*found, strict=True)]


print(f"{len(test)} videos, {len(every):,} snippets, of which {looked_at('fade', 0)[2].mean():.0%}")
print("are spoilt, the same ones at every level")

# %% [markdown]
# Two rankings of all snippets, each judged by whether spoilt ones stand on top (AUC; 0.5 is no
# relation): by the $\sigma$ that the student announced, and by the error that it really made. The
# second is out of its reach; a perfect $\sigma$ would equal it. Guess first: for which of the three
# does $\sigma$ rise, and for which not?

# %% tags=["main-figure", "nbval-ignore-output"]
# A quarter of the snippets is spoilt in steps. Does the announced sigma rank them first (left)?
# Would a perfect one (right: the error really made)?
LOOKS = {"noise": ("o-", plots.MODEL), "fade": ("s--", plots.BASELINE), "swap": ("^-.", "#009E73")}
results = {(kind, level): looked_at(kind, level) for kind in SPOILT for level in LEVELS}
fig, axes = plt.subplots(1, 2, figsize=(plots.WIDTH * 0.9, 3.2), sharey=True)
for kind, (look, colour) in LOOKS.items():
    aucs = []
    for level in LEVELS:
        announced, error, hit = results[kind, level]
        yes = hit.astype(int)
        aucs.append([roc_auc(one, yes, 1 - yes) for one in (announced, error)])
    by_sigma, by_error = np.array(aucs).T
    for ax, values in zip(axes, (by_sigma, by_error), strict=True):
        ax.plot(LEVELS, values, look, color=colour, lw=2, label=kind)
    print(f"{kind:5} AUC of sigma", " ".join(f"{x:.2f}" for x in by_sigma), end="; ")
    print("of the error", " ".join(f"{x:.2f}" for x in by_error))
for ax, title in zip(axes, ("sigma announced", "error made"), strict=True):
    ax.axhline(0.5, color="#999999", ls=":")
    ax.set(xlabel="level", title=title, ylim=(0.4, 0.8))
axes[0].set_ylabel("AUC of the spoilt snippets")
axes[0].legend(frameon=False, fontsize="small")
plt.show()

# %% [markdown]
# $\sigma$ rises as the picture fades, a little under noise, and not at all for a clean picture that
# does not belong. Nor does it follow the error: under noise a perfect $\sigma$ would know most and
# this one knows little, in a fade it is the other way round. What it seems to notice is that a
# snippet looks unusual, and a swapped one looks usual.
#
# ## 2. How sure, and how wrong
#
# Ranking is one thing, size another. In 07 announced and made agreed over a factor of ten. Here are
# their means on the spoilt snippets, level by level; an honest student stays on the diagonal.

# %% tags=["nbval-ignore-output"]
fig, ax = plt.subplots(figsize=(plots.WIDTH * 0.5, 3.4))
for kind, (look, colour) in LOOKS.items():
    pairs = []
    for level in LEVELS:
        announced, error, hit = results[kind, level]
        pairs.append((np.exp(announced[hit]).mean(), error[hit].mean()))
    told, made = np.array(pairs).T
    ax.plot(told, made, look, color=colour, label=kind)
    print(f"{kind:5} announced", " ".join(f"{x:.2f}" for x in told), end="; ")
    print("made", " ".join(f"{x:.2f}" for x in made))
ends = np.array([0.05, 1.0])
ax.plot(ends, ends, ":", color="#999999")
ax.set(xscale="log", yscale="log", xlabel="variance announced", ylabel="squared error made")
ax.legend(frameon=False, fontsize="small")
plt.show()

# %% [markdown]
# Every line leaves the diagonal upwards: the worse the input, the more the student underestimates
# its errors. Under the strongest noise the error is some five times that of clean snippets, the
# announcement twice; for swapped ones the announcement even sinks. Training showed hardly any
# spoilt snippet, so an honesty that was learned on clean ones does not carry over.
#
# ## 3. What the stage itself spoils
#
# Real corruption is not drawn by us. Soundstage flags snippets whose picture or sound is faulty
# (dark, black, clipped, silent); there the teacher's target is spoilt as well. The same two AUCs
# on videos as they are, and for events, the snippets that all of this is about.

# %% tags=["nbval-ignore-output"]
announced, error, _ = results["fade", 0.0]
flags = [store.flags(row) for row in test]
for name in ("corrupted_video", "corrupted_audio", "anomalous"):
    if name not in store.flag_names:
        print(f"{name}: this store does not say")
        continue
    yes = np.concatenate([one[name] for one in flags]).astype(int)
    by_sigma, by_error = (roc_auc(one, yes, 1 - yes) for one in (announced, error))
    print(f"{name:16} {yes.sum():5} snippets, AUC of sigma {by_sigma:.2f},", end=" ")
    print(f"of the error {by_error:.2f}")

# %% [markdown]
# Faulty pictures and sounds are hardly ranked, and errors are no larger there: the teacher's target
# is spoilt in the same way, so there is nothing to be unsure of. What $\sigma$ does rank, and
# rightly as far as errors go, are the events. There the student is pulled least.
#
# ## 4. The released weight
#
# The authors' code multiplies UKD by $10^{-8}$. 07 shows that the *encoder* does not feel it. And
# the head that predicts $\sigma$, which has no other loss? Students start from the same weights and
# see the same batches, with UKD weighing 0, $10^{-8}$ and 1. Weight decay shrinks every layer,
# teaching or not; so the way of the head is measured from where decay *alone* would have brought
# it.

# %% tags=["nbval-ignore-output"]
text = load_text(store.encoder, store.classes.words, dim=store.dim)
train_bags = TrainingSet(store, store.indices("train"), student.settings)


def weights_of(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def taught(weight):
    """A student after one pass over the training videos, and the way of its head from where
    decay alone would have brought it, relative to where it began."""
    torch.manual_seed(seed)
    settings = student.settings.override(ukd_weight=weight)
    model = build(settings, *text, classes=store.classes).to(where).train()
    model.distil_from(teacher)
    (optimiser,), train = model.optimizers(), settings.train
    start = weights_of(model.log_variance)
    steps = torch.randperm(len(train_bags)).split(train.batch_size)
    for index in steps:
        batch = train_bags.batch(index).to(where)
        optimiser.zero_grad()
        model.loss(model(batch), batch)["total"].backward()
        optimiser.step()
    alone = start * (1 - train.learning_rate * train.weight_decay) ** len(steps)
    return model.eval(), (weights_of(model.log_variance) - alone).norm() / start.norm()


encoders = []
for weight in (0.0, 1e-8, 1.0):
    model, way = taught(weight)
    announced, error, _ = looked_at("fade", 0.0, model)
    encoders.append(weights_of(model.encoder))
    apart = (encoders[-1] - encoders[0]).norm() / encoders[0].norm()
    print(f"weight {weight:<6g} head moved by {way:5.1%}, encoder {apart:6.2%} apart;", end=" ")
    print(f"variance announced {np.exp(announced).mean():.2f}, error made {error.mean():.2f}")

# %% [markdown]
# At $10^{-8}$ error and encoder are where they are without a teacher: imitation is switched off.
# The head is not. It went a good part of the way that it goes at a weight of 1, towards announcing
# errors that nobody reduces: Adam divides a gradient by its own size, and where nobody imitates,
# errors stay so large that even a hundred-millionth of their gradient makes some percent of a full
# step (07), again and again. (How far depends on the size of features; in the authors' code, with
# other features, a bounded head and a smaller learning rate, it may be nothing.) When videos are
# scored nobody reads this head.

# %% [markdown]
# ## Answer
#
# It knows that a snippet looks unusual, not that it is wrong: a fade raises $\sigma$, noise a
# little, a picture of another video not at all, and on what is spoilt the student is more wrong
# than it says. Where the stage itself is faulty there is nothing to know. At the released weight
# the student imitates nobody, and is what it would be without a teacher; only its unread head is
# trained. All of it is one student on synthetic features, spoilt by us in three ways: whoever
# relies on $\sigma$ should spoil their own data in the way that they expect.
