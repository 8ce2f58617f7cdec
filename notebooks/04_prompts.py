# %% [markdown] tags=["core"]
# # 04 · Prompts
#
# **Question:** How do learned words and the video itself reshape class embeddings?
#
# **You will be able to:**
#
# - say what the frozen text tower receives, position by position, and which positions count
# - tell by an exchange what learned words are worth to a trained detector
# - read the audio-visual prompt equation by equation, and say along which axis its softmax runs
# - say what becomes of a video's global vector when raw logits weigh it
# - measure how much of a video its class embeddings hold, and whether it matters whose
#
# **Prerequisites:** [01](01_encoders.ipynb) (cosines, prompts, the text tower),
# [02](02_temporal_mil.ipynb) (confidence), [00](00_orientation.ipynb) (AP);
# [03](03_adaptive_fusion.ipynb) (the fused features $x_{av}$) is only called
#
# **Minutes:** 23 to read, 15 hands-on; 1 on two CPU cores
#
# **Reads:** the feature store (Soundstage unless you say otherwise), the trained detector that
# ships, the study's file
#
# **Writes:** numbers to `metrics.json`; on other data a trained detector to the cache

# %% tags=["parameters", "core"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
form: str = "paper"  # of the detector trained on other data: paper or released
scale: str = "soundstage"  # of the detector trained on other data: soundstage or xd
seed: int = 0  # of the detector trained on other data, and of random inputs
device: str = "auto"  # where to compute: auto, cpu, cuda

# %% tags=["setup", "core"]
import inspect

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F

from avadclip_lite.compare import paper
from avadclip_lite.config import find_device, make_config
from avadclip_lite.dataset import TrainingSet
from avadclip_lite.evaluate import evaluate
from avadclip_lite.experiments import study
from avadclip_lite.experiments.cache import train_or_load
from avadclip_lite.experiments.metrics import record
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.prompts import AudioVisualPrompt, TextualPrompt, global_vector
from avadclip_lite.viz import plots
from avadclip_lite.viz.lesson import examples, open_stage, scoreboard, shipped

plots.use_style()
check_parameters(globals())  # plain papermill hands lists over as text
store = open_stage(data)
running = examples(store)  # the rows of the three videos that go through all notebooks
words = store.classes.words
dataset = "Soundstage" if store.encoder == "soundstage" else store.path.name
where = find_device(device)

# %% [markdown] tags=["core"]
# ## 1. Words that no dictionary has
#
# A detector knows its classes by vectors: one **class embedding** for each, in the space of
# pictures and sounds. A snippet belongs to the class whose embedding has the highest cosine with
# its own vector. Notebook 01 made class embeddings from words that somebody wrote, and nobody knows
# in advance which phrase is best for "riot".
#
# So let training choose. At the text tower's door each token of a prompt (a word or a piece of one)
# is looked up in a table. What the tower then processes are *vectors*, and nothing says that these
# have to come from the table. A **learnable textual prompt** keeps the vectors of the class word
# and puts learned ones around it, **context vectors**: words that no dictionary has. All classes
# share them, and the tower itself stays frozen.
#
# What can such a shared word do? A toy in the plane: two class words, a tower that does nothing but
# add the context to the word, and one snippet, a bang heard faintly.

# %% tags=["core"]
word = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # (C, D): normal, bang
snippet = torch.tensor([0.8, 0.6])
for name, value in zip(("normal", "bang"), F.cosine_similarity(word, snippet[None]), strict=True):
    print(f"cosine to {name:7} {value:.2f}")

# %% [markdown] tags=["core"]
# Without context the snippet is called normal. Now the *same* vector is added to both words.
# Training would like it to be called a bang.

# %% [markdown] tags=["core"]
# ### Exercise 1
#
# *7 minutes, easy.* Guess first: can one vector that is added to *all* class words change which of
# them is nearest? Then write the function that tells; the check tries a whole grid of contexts.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution", "core"]
def nearest(snippet, word, context):
    """Index of the class whose embedding, word + context (C, D), has the highest cosine."""
    # BEGIN SOLUTION
    # Stumbles: the dot product is not enough. It grows by the same number for all classes, so
    # that nothing would ever change.
    return int(F.cosine_similarity(word + context, snippet[None]).argmax())
    # END SOLUTION


# %% tags=["check", "core"]
assert nearest(snippet, word, torch.zeros(2)) == 0, "without context it is normal"
assert nearest(torch.tensor([0.1, 0.9]), word, torch.zeros(2)) == 1, "and this one is a bang"
side = torch.linspace(-2, 2, 21)
hits = [nearest(snippet, word, torch.tensor([x, y])) for x in side for y in side]
print(f"{sum(hits)} of {len(hits)} shared contexts make the snippet a bang")
assert 0 < sum(hits) < len(hits), "some contexts do it, some do not"
print("Exercise 1 is solved.")

# %% [markdown] tags=["core"]
# It can, because cosines compare directions: a common shift turns vectors of different directions
# by different angles. A real tower bends far more than this one, and what a shared word does to
# each class is for training to find.
#
# ## 2. What the tower receives
#
# Here is the real layout, read off the trained detector that ships, the one of 03. (For other data
# one is trained now, and numbers in the text do not hold.) S and E are the marks of start and end,
# a dot is a learned vector, # a token of the class word.

# %% tags=["nbval-ignore-output", "core"]
teacher = shipped(store, "teacher")
if teacher is None:
    print("nothing ships for this data: training one")
    how = dict(form=form, scale=scale, dim=store.dim, seed=seed, device=device)
    settings = make_config(**how, selection="holdout", reload_best=False)
    teacher = train_or_load(settings, store, progress=False).model
teacher = teacher.to(where).eval()
textual, tower = teacher.textual_prompt, teacher.textual_prompt.tower
print(f"a detector of form {teacher.settings.form}, seed {teacher.settings.train.seed}\n")
for name, learned, end in zip(words, textual.learned, textual.ends.tolist(), strict=True):
    inside = "".join("." if one else "#" for one in learned[1:end])
    print(f"{name:13} S{inside}E")
used = int(textual.learned.any(dim=0).sum())
print(f"\nlearned: {used} positions x {tower.width}; the frozen tower around them:", end=" ")
print(f"{sum(p.numel() for p in tower.parameters()):,} numbers")

# %% [markdown] tags=["core"]
# The learned table has a row for every *position* of the tower, as in the authors' code, and a
# prompt takes the rows of the positions that are free. So where the second half of *car accident*
# stands, all other classes have a learned vector. In the code `tokens` are the vectors of marks and
# words, looked up once; L counts positions, W the numbers of each vector.

# %% tags=["core"]
print(inspect.getsource(TextualPrompt.embed))
with torch.no_grad():
    x_c = textual()
shapes = tuple(textual.embed().shape), tuple(x_c.shape)
print("enters the tower (C, L, W): {}; comes out (C, D): {}".format(*shapes))

# %% [markdown]
# Which positions count? Ask the gradient: differentiate a class embedding with respect to the
# vector at each position. The tower has room for more positions than a prompt needs; those behind
# the end mark get noise. In the figure a class is a row, and the colour says how strongly its
# embedding reacts to a position, as a share of the row. Where does each row end, and why?

# %% tags=["nbval-ignore-output"]
L = min(32, tower.positions)
package, ends = textual.embed().detach(), textual.ends
generator = torch.Generator().manual_seed(seed)
noise = 0.1 * torch.randn(len(words), L - package.shape[1], tower.width, generator=generator)
x = torch.cat([package, noise.to(where)], dim=1).requires_grad_()
features, reaction = tower(x, ends), torch.zeros(len(words), L, device=where)
for _ in range(32):  # random directions in place of all D outputs
    direction = torch.randn(features.shape, generator=generator).to(where)
    (gradient,) = torch.autograd.grad((features * direction).sum(), x, retain_graph=True)
    reaction += gradient.square().sum(dim=-1)
beyond = torch.arange(L, device=where) > ends[:, None]
assert not reaction[beyond].any(), "a position behind the end mark reaches the class embedding"
share = (reaction.sqrt() / reaction.sqrt().sum(dim=1, keepdim=True)).masked_fill(beyond, torch.nan)
fig, ax = plt.subplots(figsize=(plots.WIDTH, 2.6))
sns.heatmap(share.cpu().numpy(), cmap="Blues", vmin=0, yticklabels=words, ax=ax)
ax.set_facecolor("#E8E8E8")
ax.set(xlabel="position (grey: exactly zero)", title="Reaction of each class embedding, share")
ax.tick_params(axis="x", rotation=0)
plt.show()
own = (share[:, : package.shape[1]].nan_to_num() * textual.learned).sum(dim=1)
token = 1 - own - share[:, 0] - share.gather(1, ends[:, None])[:, 0]
print(f"the learned vectors, all together: {own.mean():.0%}; the class word: {token.mean():.0%}")

# %% [markdown]
# Behind the end mark the reaction is not small but zero: attention is causal (01), and the feature
# is read at the end mark. So the package leaves those positions out.

# %% [markdown] tags=["core"]
# ### What are the learned words worth?
#
# That an embedding *reacts* to a vector does not say that training made something of it. A test
# that can fail: leave the trained detector as it is, and exchange nothing but its context, for
# freshly drawn vectors, which have learned nothing, and for none at all, the bare class words.

# %% tags=["nbval-ignore-output", "core"]
MEASURES = {
    "frame_ap_classification": "AP, classification",
    "frame_ap_alignment": "AP, alignment",
    "map_anomaly": "mean mAP",
}


def cosines(a, b):
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).mT


def measured():
    """The teacher on the test videos, percent."""
    metrics = evaluate(teacher, store).metrics
    return {title: 100 * metrics[name] for name, title in MEASURES.items() if name in metrics}


torch.manual_seed(seed)
around = teacher.settings.model.context_before, teacher.settings.model.context_after
fresh = TextualPrompt(tower, textual.prompts, *around).to(where)
bare = TextualPrompt(tower, textual.prompts, before=0, after=0).to(where)
contexts = {"as trained": textual, "fresh context": fresh, "bare words": bare}
rows = {}
for name, prompt in contexts.items():
    teacher.textual_prompt = prompt
    rows[name] = measured()
teacher.textual_prompt = textual
print(pd.DataFrame(rows).T.to_string(float_format="{:.1f}".format))

# %% [markdown] tags=["core"]
# (Only the alignment branch uses class embeddings, so the classification branch must not move.)
# *Mean mAP*, of names and places, is explained in 05. Fresh context costs less than two points of
# AP, bare words less than three, and naming events in time hardly notices either. So the learned
# words are worth something to this detector, and not much. Even that is generous: everything else
# in it was trained *around* these words.

# %% [markdown]
# What became of the seven words? The cosines between class embeddings, on the left for the bare
# words, on the right in the trained detector. Compare the first rows, *normal*.


# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    sets = {"bare words": bare(), "in the detector": x_c}
fig, axes = plt.subplots(1, 2, figsize=(plots.WIDTH * 0.8, 3.6), sharey=True)
look = dict(annot=True, fmt=".1f", cmap="Blues", vmin=0, vmax=1, cbar=False, square=True)
for ax, (name, embedding) in zip(axes, sets.items(), strict=True):
    there, kept = cosines(embedding, embedding), cosines(embedding, sets["bare words"]).diag()
    sns.heatmap(there.cpu().numpy(), ax=ax, xticklabels=words, yticklabels=words, **look)
    ax.set_title(name)
    ax.tick_params(left=ax is axes[0])
    plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    print(f"{name:16} normal to the anomalies {there[0, 1:].mean():.2f};", end=" ")
    print(f"cosine to the bare word {kept.min():.2f} to {kept.max():.2f}")
plt.show()

# %% [markdown]
# Not much: every class embedding has kept a cosine above 0.9 to its bare word. *Normal* has moved a
# little away from *fighting* and *riot*, *car accident* and *explosion* have moved together. The
# *features* are learned as well, and can come to the words.

# %% [markdown] tags=["core"]
# ## 3. The audio-visual prompt
#
# So far a class embedding is the same for every video. But riots differ: one is a dark street with
# shouting, another a sunlit square with smoke. In the paper each video adjusts the class words to
# itself. First the video is put into one vector of length 1, mostly made of the snippets that look
# anomalous; then every class takes some of it. With confidence $a\;(T)$, fused features
# $x_{av}\;(T, D)$, class embeddings $x_c\;(C, D)$:
#
# $$\begin{aligned}
# x_p &= \mathrm{Norm}(a^\top x_{av}) && \text{the video in one vector} && (4)\\
# s_p &= \mathrm{softmax}(x_c\,x_p^\top) && \text{the share each class takes} && (5)\\
# x_{mp} &= s_p\,x_p && \text{the imprint on each class} && (6)\\
# x_{cp} &= \mathrm{FFN}(x_{mp} + x_c) + x_c && \text{class embeddings that know the video} && (7)
# \end{aligned}$$
#
# By pencil, without the feed-forward network: three snippets of two numbers, two classes. Something
# bangs in the second snippet, and the classification branch noticed. The tower's class embeddings
# may have any length, so we try two.

# %% tags=["core"]
x_av = torch.tensor([[1.0, 0.0], [0.2, 0.98], [1.0, 0.0]])  # (T, D)
a = torch.tensor([0.1, 0.9, 0.1])  # (T,)
for size in (1.0, 10.0):
    classes = size * word  # (C, D): normal, bang
    x_p = F.normalize(a @ x_av, dim=0)  # (4)
    s_p = F.cosine_similarity(classes, x_p[None]).softmax(dim=0)  # (5)
    x_mp = s_p[:, None] * x_p  # (6)
    turned = torch.rad2deg(torch.acos(F.cosine_similarity(x_mp + classes, classes)))
    print(f"length {size:2.0f}: x_p {x_p.numpy().round(2)}, s_p {s_p.numpy().round(2)}", end=", ")
    print(f"turned by {turned.numpy().round(1)} degrees")

# %% [markdown] tags=["core"]
# The global vector lies close to the second snippet, the one that bangs, though two of three
# snippets are quiet. *Bang* takes the larger share, but not by much, because a softmax of two
# cosines is rather flat. And the same video turns long class embeddings far less than short ones.
# Keep both in mind. In the package's class, below, the switches `uniform` and `sum` are the
# authors' code. (The paper does not say whether $x_c$ is normalised in equation 5; this package
# takes cosines, at a temperature of one.)

# %% tags=["core"]
print(inspect.getsource(AudioVisualPrompt))
bags = TrainingSet(store, store.indices("test"), teacher.settings).to(where)
with torch.no_grad():
    output = teacher(bags.batch(torch.arange(min(16, len(bags)))))
    logit_weighted = teacher.settings.model.global_weight == "logit"
    weights = output.anomaly_logits if logit_weighted else output.confidence
    x_p = global_vector(output.features, weights * output.mask)
    x_cp = teacher.av_prompt(x_c, x_p)
print("x_p", tuple(x_p.shape), " x_cp", tuple(x_cp.shape), " the detector's own:", end=" ")
print(torch.allclose(x_cp, output.prompted_embeddings, atol=1e-3, rtol=1e-3))

# %% [markdown] tags=["core"]
# ## 4. Along which axis?
#
# Equation 5 writes "softmax" and leaves the axis to the reader. For one video only the *classes*
# make sense: it divides its one vector among C of them. The authors' code first copies the global
# vector C times, computes a C x C table of similarities, and takes the softmax over the *copies*.

# %% [markdown]
# ### Exercise 2
#
# *8 minutes, medium.* Write both. `x_c` is (C, D), `x_p` (D). Return the shares (C,) of a softmax
# over classes of cosines, and the table (C, C) as released: similarities (dot products) of every
# class to C copies of `x_p`, softmax over the copies. Guess what the second holds before you print
# it.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def both_axes(x_c, x_p):
    """Shares (C,) over classes, and the table (C, C) over copies."""
    # BEGIN SOLUTION
    # Stumbles: the copies are the columns; over the rows the softmax would be the paper's again.
    shares = F.cosine_similarity(x_c, x_p[None]).softmax(dim=0)
    copies = x_p.expand(len(x_c), -1)
    return shares, (x_c @ copies.T).softmax(dim=1)
    # END SOLUTION


# %% tags=["check"]
some_c = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))
shares, table = both_axes(some_c, some_c[2] / some_c[2].norm())
assert shares.shape == (7,) and torch.isclose(shares.sum(), torch.tensor(1.0)), "shares of one"
assert shares.argmax() == 2, "the class that the video resembles takes most"
assert table.shape == (7, 7) and torch.allclose(table, torch.full((7, 7), 1 / 7)), "over copies"
print("Exercise 2 is solved: over equal copies every weight is one seventh.")

# %% [markdown] tags=["core"]
# A softmax over equal numbers is flat, whatever the video and the class. The C copies, a C-th each,
# add up to the whole vector, so every class gets the same imprint (in our configuration
# `av_prompt="uniform"`), and such weights cannot learn, as they depend on nothing.
#
# Does the paper's softmax do better on the right axis? Put every test video of the trained detector
# into its vector and look at the shares: at the largest, at the **effective number of classes**,
# $e^{H}$ with $H$ the entropy of the shares (C if all are equal, 1 if one class takes everything),
# and whether the class that takes most is one of the video's. The temperature is ours to choose, so
# colder ones are tried, too.


# %% tags=["nbval-ignore-output", "core"]
@torch.no_grad()
def survey():
    """Global vectors (V, D) of all test videos, weighted by confidences and by raw logits."""
    found = {"confidence": [], "logit": []}
    for index in torch.arange(len(bags)).split(32):
        output = teacher(bags.batch(index))
        each = {"confidence": output.confidence, "logit": output.anomaly_logits}
        for name, weights in each.items():
            found[name].append(global_vector(output.features, weights * output.mask))
    return {name: torch.cat(parts) for name, parts in found.items()}


def shares_at(temperature):
    return (cosine / temperature).softmax(dim=1)


vectors = survey()
cosine = cosines(vectors["confidence"], x_c)  # (V, C)
for temperature in (1.0, 0.3, 0.1, 0.03):
    own = shares_at(temperature)
    effective = torch.special.entr(own).sum(dim=1).exp().mean()
    print(f"temperature {temperature:4}: largest share {own.amax(dim=1).mean():.0%}", end=", ")
    print(f"{effective:.2f} effective classes of {len(words)}")
spread = (cosine.amax(dim=1) - cosine.amin(dim=1)).mean()
print(f"\ncosines of a video to the classes: {spread:.2f} between highest and lowest, on average")
true = torch.from_numpy(store.labels(bags.rows)).to(where) > 0
right = true.gather(1, cosine.argmax(dim=1, keepdim=True)).float().mean()
print(f"the class that takes most is one of the video's: {right:.0%} of the videos")

# %% [markdown] tags=["core"]
# The choice itself is sound: in about seven of ten videos the class that takes most is one of the
# video's (always *normal* would be right in 133 of 300). But it hardly takes more than the others.
# Cosines that lie half a unit apart cannot do better at a temperature of one; to *pick*, the
# softmax needs a tenth or less.
#
# The paper gives no temperature, and equation 5 read to the letter is a dot product: with a class
# embedding of length ten, that is a cosine at a temperature of a tenth. One missing word in a
# paper, a factor of ten.
#
# ## 5. The sign
#
# The authors' code departs in a second place: it weighs snippets with raw logits. A confidence is
# never negative; a logit is, wherever the detector thinks *normal*. Three snippets with a common
# part, as the features of one video have, and three sets of logits:

# %% tags=["core"]
x_av = torch.tensor([[1.0, 0.2], [1.0, -0.1], [1.0, 0.1]])  # (T, D)
TOYS = {"calm": [-3.0, -2.0, -4.0], "one loud snippet": [-3, 2, -3.0], "mostly loud": [-1, 3, 2.0]}
for what, logits in TOYS.items():
    by_logit = F.normalize(torch.tensor(logits) @ x_av, dim=0)
    by_confidence = F.normalize(torch.sigmoid(torch.tensor(logits)) @ x_av, dim=0)
    print(f"{what:17} logits {logits}: cosine {by_logit @ by_confidence:5.2f}")

# %% [markdown] tags=["core"]
# Where most logits are negative, the vector points *away* from the video: what is most typical of
# it is subtracted from the class words. Now all test videos. On the left the shares of section 4,
# largest first (bands: the middle eight tenths of the videos), on the right the cosine between the
# two global vectors of each video. Where would you draw a line between the two groups?

# %% tags=["main-figure", "nbval-ignore-output", "core"]
# The audio-visual prompt on all test videos. Left: the share of the global vector that each class
# takes, at two temperatures and as released. Right: the cosine between the global vector by raw
# logits and by confidences.
fig, (left, on_right) = plt.subplots(1, 2, figsize=(plots.WIDTH, 3.3))
rank = np.arange(1, len(words) + 1)
for temperature, colour, dash in ((1.0, plots.MODEL, "-"), (0.1, plots.BASELINE, "--")):
    ordered = shares_at(temperature).sort(dim=1, descending=True).values.cpu().numpy()
    left.fill_between(
        rank, *np.quantile(ordered, [0.1, 0.9], axis=0), color=colour, alpha=0.2, lw=0
    )
    label = f"temperature {temperature:g}"
    left.plot(rank, ordered.mean(axis=0), dash, color=colour, marker="o", ms=4, label=label)
left.axhline(1 / len(words), color=plots.INK, ls=":", label="released: all equal")
left.set(xlabel="class, by its share", ylabel="share of the global vector", ylim=(0, None))
left.legend(frameon=False, fontsize="small")
flip = (vectors["confidence"] * vectors["logit"]).sum(dim=1).cpu().numpy()  # unit vectors
normal, edges = true[:, 0].cpu().numpy(), np.linspace(-1, 1, 31)
groups = {"normal videos": (normal, "#8C8C8C"), "anomalous videos": (~normal, plots.TRUTH)}
for name, (group, colour) in groups.items():
    counts, _ = np.histogram(flip[group], edges)
    on_right.stairs(counts / group.sum(), edges, fill=True, color=colour, alpha=0.3)
    on_right.stairs(counts / group.sum(), edges, color=colour, lw=1.8, label=name)
    print(f"{name:17} turned around in {(flip[group] < 0).mean():4.0%}", end=", ")
    print(f"median cosine {np.median(flip[group]):5.2f}")
on_right.set(xlabel="cosine, by logits against by confidences", ylabel="share of the videos")
on_right.set_xticks([-1, -0.5, 0, 0.5, 1])
on_right.legend(frameon=False, fontsize="small", loc="upper center")
plt.show()

# %% [markdown] tags=["core"]
# Nearly every normal video is turned around, and about a third of the anomalous ones. So the flip
# is no noise. It says in one bit whether most of the video's logits are negative: a judgement that
# confidences lose, because equation 4 normalises away how large they are.
#
# ## 6. Whose imprint?
#
# Whether the equations *do* anything can be measured. First lengths: a share of a *unit* vector is
# added to a class embedding of whatever length the tower gives. Then the class embeddings that are
# finally used: how much do they differ between videos?

# %% tags=["nbval-ignore-output", "core"]
with torch.no_grad():
    x_p = vectors["logit" if logit_weighted else "confidence"]
    x_mp = teacher.av_prompt.similarity(x_c, x_p)[..., None] * x_p[:, None]
    x_cp = teacher.av_prompt(x_c, x_p)  # (V, C, D)


def degrees(cosine):
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


each = x_cp.double().transpose(0, 1)  # (C, V, D)
apart = degrees(cosines(each, each))
moved = degrees(cosines(each.mean(dim=1), x_c.double()).diag())
print(f"length of x_c {x_c.norm(dim=-1).mean():.2f}, of x_mp {x_mp.norm(dim=-1).mean():.2f}")
print(f"x_cp of one class in two videos: {apart.mean():.1f} degrees apart", end=" ")
print(f"on average, {apart.max():.1f} at most")
print(f"x_cp and x_c: {moved.min():.0f} to {moved.max():.0f} degrees apart, by class")

# %% [markdown] tags=["core"]
# Here is the surprise: the class embeddings "that know the video" are practically the same for
# every video. The imprint leans the right way (section 4), but is a whisper: compare its length
# with that of what it is added to. The module does turn the class embeddings, but alike for all
# videos: it comes down to a feed-forward network on the class words.
#
# Now a test that can fail. If the imprint carries something of the video, it must matter *whose*
# imprint a video gets. Give each video its own global vector, then another video's, its own turned
# around, and none; and last take the module out altogether. Guess which of the five rows is lowest.


# %% tags=["nbval-ignore-output", "core"]
CHANGES = {
    "its own": lambda x_p: x_p,
    "another video's": lambda x_p: x_p.roll(1, dims=0),
    "its own, turned around": lambda x_p: -x_p,
    "none": torch.zeros_like,
}
own, rows = teacher.av_prompt, {}
for name, change in CHANGES.items():  # this object's method, in place of its class's
    own.forward = lambda x_c, x_p, to=change: AudioVisualPrompt.forward(own, x_c, to(x_p))
    rows[name] = measured()
del own.forward
teacher.av_prompt = None
rows["(module taken out)"] = measured()
teacher.av_prompt = own
whose = pd.DataFrame(rows).T
print(whose[["AP, alignment", "mean mAP"]].to_string(float_format="{:.1f}".format))
for name, value in whose["AP, alignment"].items():
    about = {"dataset": dataset, "detector": f"teacher, imprint: {name}", "split": "test"}
    record("frame_ap", value / 100, branch="alignment", **about)

# %% [markdown] tags=["core"]
# Whose imprint it is does not matter; not even turning it around does. What the last row lacks
# besides is the feed-forward network. So what this detector's audio-visual prompt gives is not
# audio-visual. Read that with its limits: it is *this* reading of the equations, on this text
# tower, on synthetic data. How long the class embeddings are is a property of the tower, and
# nothing in the equations makes up for it.
# What a louder imprint would say: [lab note](studies/what_the_prompt_carries.ipynb).

# %% [markdown] tags=["core"]
# ## 7. What it buys
#
# An exchange in a finished detector does not say what one would be that had been *trained* without
# the module. The study trains both (03 explains the interval). The paper adds the prompt before the
# focal loss of 05, so the comparison without that loss is the nearer one, where the file holds it;
# only signs can be compared with the paper's.

# %% tags=["nbval-ignore-output", "core"]
STEPS = {
    "all parts": ("adaptive", "no audio-visual prompt"),
    "without focal loss": ("no focal loss", "neither prompt nor focal loss"),
}
results = study.results("main")
results = results[results["store"] == store.digest]  # trained on the data that is open
for name, (row, against) in STEPS.items():
    if (
        results[results["row"].isin([row, against])].groupby("seed")["row"].nunique().eq(2).sum()
        < 2
    ):
        print(f"{name}: the file holds fewer than two seeds of both on this data")
        continue
    for measure, title in MEASURES.items():
        pair = study.paired(results, row, against, measure)
        line = (
            f"{pair.mean:+5.1f} [{pair.low:+.1f}, {pair.high:+.1f}], {len(pair.differences)} seeds"
        )
        print(f"{name + ', ' + title:40} {line}: {pair.verdict}")
after, before = (paper.ABLATION[row] for row in ("+ audio-visual prompt", "+ fusion"))
print(f"the paper: AP {after.ap - before.ap:+.2f}, mean mAP {after.map - before.map:+.2f}")

# %% [markdown] tags=["core"]
# Classification moves, too: training shapes the features that both branches share (06). And mind
# what else is missing without the module: the feed-forward network on the class words. Section 6
# says how much of a difference, up or down, can be the video's.
#
# The scoreboard does not grow here: a prompt alone is no detector.

# %% tags=["nbval-ignore-output", "core"]
share = store.frame_truth(bags.rows).mean()
bars = study.results()
bars = bars[bars["store"] == store.digest]
scoreboard(bars, upto="04", known={"chance": share}, data=dataset)
plt.show()

# %% [markdown] tags=["core"]
# ## Recap
#
# - say what the frozen text tower receives, position by position, and which positions count: a
#   start mark, learned vectors, the class word, learned vectors, an end mark; nothing behind it.
# - tell by an exchange what learned words are worth to a trained detector: fresh or no context
#   costs its alignment branch two or three points of AP, and naming events next to nothing.
# - read the audio-visual prompt equation by equation, and say along which axis its softmax runs:
#   over the classes; over equal copies, as released, all weights are equal and nothing is chosen.
# - say what becomes of a video's global vector when raw logits weigh it: it points away from a
#   video whose logits are mostly negative, which is nearly every normal one.
# - measure how much of a video its class embeddings hold, and whether it matters whose: next to
#   nothing at class embeddings of length ten; another video's imprint changes no result.
#
# The class embeddings are ready. Notebook [05](05_mil_align.ipynb) lays them against every
# snippet and asks how the alignment map names and localises an event.
