# %% [markdown] tags=["core"]
# # 02 · Bags, Top-K and temporal context
#
# **Question:** How does a video's label teach snippets?
#
# **You will be able to:**
#
# - say what a bag is, and why a mean breaks and a maximum is blind
# - compute the Top-K loss of a video by hand and point at the snippets that learn from it
# - say the same as a ranking, as an older detector does
# - draw what a snippet sees through windows and through two graphs
# - measure what context buys, against a filter that needs no training
#
# **Prerequisites:** [00](00_orientation.ipynb) (the data), [01](01_encoders.ipynb) (features of
# snippets); PyTorch, and what attention is
#
# **Minutes:** 24 to read, 14 hands-on; 1 on two CPU cores
#
# **Reads:** the feature store (Soundstage unless you say otherwise), the study's file
#
# **Writes:** two small detectors to the cache, numbers to `metrics.json`

# %% tags=["parameters", "core"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
scale: str = "soundstage"  # sizes of model and batch: soundstage, or xd (XD-Violence)
seed: int = 0  # of every random number
epochs: int = 10  # passes over the training videos, section 6
device: str = "auto"  # where section 6 trains: auto, cpu, cuda

# %% tags=["setup", "core"]
import inspect
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_dilation, median_filter
from scipy.special import expit
from torch import nn
from torch.testing import assert_close

from avadclip_lite import losses, temporal
from avadclip_lite.baselines.deepmil import ranking_hinge
from avadclip_lite.config import make_config
from avadclip_lite.dataset import Output
from avadclip_lite.encoders import load_text
from avadclip_lite.evaluate import average_precision, predict_store, snippet_truth
from avadclip_lite.experiments import study
from avadclip_lite.experiments.cache import train_or_load
from avadclip_lite.experiments.metrics import record
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.model import AnomalyHead, Detector, register
from avadclip_lite.prompts import TextualPrompt, alignment_map
from avadclip_lite.viz import plots
from avadclip_lite.viz.lesson import FPS, examples, open_stage, scoreboard

plots.use_style()
check_parameters(globals())  # plain papermill hands lists over as text
store = open_stage(data)
settings = make_config(scale=scale, dim=store.dim)
running = examples(store)  # the rows of the three videos that go through all notebooks
test = store.indices("test")
dataset = "Soundstage" if store.encoder == "soundstage" else store.classes.name

# %% [markdown] tags=["core"]
# ## 1. A video is a bag
#
# Each snippet of a video has become a feature (01), and a weak label says which classes occur
# somewhere in the video, not when. We want each snippet's **confidence** $a$ that it shows an
# anomaly. For that we use only column 0 of the label, *nothing happens* or *something does*; the
# classes return in 05.
#
# Learning from such labels is **multiple-instance learning** (MIL). The video is a **bag**, its
# snippets are the **instances**. A bag is anomalous if at least one of its instances is, and nobody
# says which.
#
# A loss needs one number a bag, so the confidences are pooled into one, and **the pooling decides
# which instances learn**. Take a bag of four snippets and three ways to pool. For an anomalous bag
# the loss is $-\ln p$ of the pooled confidence $p$, for a normal one $-\ln(1-p)$; each confidence
# is the sigmoid of a **logit** $s$. Where does the gradient go?

# %% tags=["core"]
confidence = torch.tensor([0.2, 0.7, 0.6, 0.1])  # four instances of one bag
poolings = {
    "maximum": lambda a: a.max(),
    "Top-2": lambda a: a.topk(2).values.mean(),
    "mean": lambda a: a.mean(),
}
logits, columns = torch.logit(confidence).requires_grad_(), {}
for name, pool in poolings.items():
    p = pool(torch.sigmoid(logits))
    print(f"{name:8} p = {p:.2f}, loss if anomalous {-p.log():.2f}, if normal {-(1 - p).log():.2f}")
    (columns[name, "anomalous"],) = torch.autograd.grad(-p.log(), logits, retain_graph=True)
    (columns[name, "normal"],) = torch.autograd.grad(-(1 - p).log(), logits)
table = pd.DataFrame(columns, index=[f"snippet {i}" for i in range(4)])
print("\ngradient of the loss by each logit\n" + table.round(2).to_string())

# %% [markdown] tags=["core"]
# A negative gradient means that a step pushes the logit *up*.
#
# - **The maximum is blind.** One instance learns, the others are mute. If the highest confidence is
#   a fluke, next time it is higher still.
# - **The mean breaks.** Every instance is pushed up, the normal ones too; and the bag scores high
#   only when *most* of its snippets do, while a fight may fill a small part of a long video.
# - **Top-K** lies between: a few instances share the gradient, so that one fluke cannot carry the
#   bag alone, and the quiet rest stays out of it.
#
# In a normal bag the same instances are pushed *down*. Its highest confidences are false alarms by
# definition: the part of a normal video worth learning from.

# %% [markdown] tags=["core"]
# ### Exercise 1
#
# *7 minutes, easy.* A fourth way to pool is **noisy-OR**, which takes the definition of a bag at
# its word: normal only if every instance is, $p = 1 - \prod_i (1 - a_i)$. Write it for padded bags,
# confidences $(B, T)$ and lengths $(B,)$. Guess first: what does it say about thirty-two harmless
# snippets with a confidence of 0.1 each?


# %% jupyter={"source_hidden": true} tags=["exercise", "solution", "core"]
def noisy_or(confidence_BT, lengths_B):
    """One score a bag, (B,); padding does not count."""
    # BEGIN SOLUTION
    # Stumbles: padding must contribute a factor of 1 to the product, not a confidence of 1.
    valid_BT = temporal.length_mask(lengths_B, confidence_BT.shape[1])
    return 1 - torch.where(valid_BT, 1 - confidence_BT, 1.0).prod(dim=1)
    # END SOLUTION


# %% tags=["check", "core"]
answer = noisy_or(torch.tensor([[0.5, 0.5, 0.9], [0.2, 0.7, 0.6]]), torch.tensor([2, 3]))
assert_close(answer, torch.tensor([0.75, 1 - 0.8 * 0.3 * 0.4]), msg="does the padding (0.9) count?")
harmless = noisy_or(torch.full((1, 32), 0.1), torch.tensor([32]))
print(f"Exercise 1 is solved: thirty-two harmless snippets score {harmless.item():.2f},")
print("and longer videos higher still. A pooling must not count.")

# %% [markdown] tags=["core"]
# ## 2. Top-K
#
# A longer video may hold a longer event, so K grows with the number of snippets $T$:
#
# $$p = \frac1K \sum_{i \,\in\, \mathrm{top}\ K} a_i, \qquad K = \lfloor T/16 \rfloor + 1$$
#
# The 16 is a choice of the authors' released code, not the stride. Each of the K chosen snippets
# gets $-\frac1p \cdot \frac1K \cdot a_i(1-a_i)$ in an anomalous bag, with $+\frac1{1-p}$ for the
# first factor in a normal one; all others get exactly nothing. Videos of a batch differ in length,
# so padding must never be chosen, and K differs from row to row. The package does it like this:

# %% tags=["core"]
print(inspect.getsource(losses.topk_mean))
toy = torch.logit(torch.tensor([[0.2, 0.7, 0.6, 0.1], [0.3, 0.4, 0.99, 0.99]])).requires_grad_()
lengths, anomalous = torch.tensor([4, 2]), torch.tensor([1.0, 0.0])  # two places of padding
loss = losses.topk_bce(toy, anomalous, lengths, divisor=4)  # so that four snippets have K = 2
by_hand = (-math.log((0.7 + 0.6) / 2) - math.log(1 - 0.4)) / 2
print(f"loss of two bags: by hand {by_hand:.4f}, package {loss:.4f}")
(gradient,) = torch.autograd.grad(loss, toy)
print("gradient of each logit\n", gradient.numpy().round(2))
assert_close(loss, torch.tensor(by_hand))

# %% [markdown] tags=["core"]
# In the second bag the two highest numbers are padding, a trap, and nothing reaches them.

# %% [markdown]
# What if the events of a video fill fewer snippets than K? Then some of the chosen are normal for
# certain, and are pushed up all the same. If they fill many more, most of the event learns nothing
# from this video. The test videos tell how often:

# %%
eventful = [i for i in test if store.frame_truth([i]).any()]
most = settings.model.max_snippets  # a longer bag is shortened to this, by means of neighbours
T = np.minimum(store.snippets[eventful], most)
K = T // settings.loss.topk_divisor + 1
filled = T * [store.frame_truth([i]).mean() for i in eventful]  # snippets
print(f"{len(eventful)} anomalous test bags of {T.min()} to {T.max()} snippets")
print(f"events fill {np.mean(filled / T):.0%} of the snippets, K {np.mean(K / T):.0%}")
print(f"events fill less than K in {np.mean(filled < K):.0%} of the videos, ", end="")
print(f"more than four times K in {np.mean(filled > 4 * K):.0%}")

# %% [markdown] tags=["core"]
# ## 3. The older way to say it
#
# Before any of this, in 2018, **DeepMIL** put the same idea as a *ranking*: the most suspicious
# snippet of an anomalous bag must outrank the most suspicious snippet of a normal one, by a margin.
# As a **hinge**, which is zero once the margin is kept:
#
# $$\mathrm{loss} = \max(0,\; 1 - \max_i a_i + \max_j b_j)$$
#
# for the confidences $a$ of an anomalous bag and $b$ of a normal one.

# %% [markdown] tags=["core"]
# ### Exercise 2
#
# *7 minutes, easy.* Write it for pairs of bags, the mean over pairs. Guess first: of the 16
# snippets in the check, how many learn? And when does the hinge stop pushing, if all confidences
# lie between 0 and 1?


# %% jupyter={"source_hidden": true} tags=["exercise", "solution", "core"]
def hinge(abnormal_BT, normal_BT):
    """Mean over B pairs of bags, confidences (B, T) of each kind, without padding."""
    # BEGIN SOLUTION
    # Stumbles: the hinge comes before the mean, or a pair that is ranked well pays for another.
    high_B, low_B = abnormal_BT.amax(dim=1), normal_BT.amax(dim=1)
    return F.relu(1 - high_B + low_B).mean()
    # END SOLUTION


# %% tags=["check", "core"]
generator = torch.Generator().manual_seed(seed)
bags = torch.rand(2, 2, 4, generator=generator).requires_grad_()  # kind, bag, snippet
answer = hinge(*bags)
assert_close(answer, ranking_hinge(*bags, all_pairs=False), msg="the mean over pairs of the hinge")
(gradient,) = torch.autograd.grad(answer, bags)
assert (gradient != 0).sum() == 4, "one snippet a bag"
assert hinge(torch.ones(1, 4), torch.zeros(1, 4)) == 0, "perfectly ranked: nothing to pay"
print(f"Exercise 2 is solved: {int((gradient != 0).sum())} of {gradient.numel()} snippets learn.")

# %% [markdown] tags=["core"]
# With a margin as wide as the range it pushes until one side is 1 and the other 0, much as
# cross-entropy does. The difference that matters is the maximum: one snippet a bag. DeepMIL's code
# compares every anomalous bag with every normal one, and adds two penalties: anomalies shall be
# rare, and confidences smooth.
#
# ## 4. Do labels of bags find the right snippets?
#
# Why should the chosen instances be the *right* ones? Because of the normal bags. Whatever scores
# high there is pushed down, so features that occur everywhere cannot stay high. What is left to
# make anomalous bags high is what occurs only there.
#
# Try it where the answer is known. The bags below hold snippets of random numbers. In half of them
# a short run of snippets has its *first* number raised: that is all an anomaly is. And any snippet
# of any bag may be a glitch, with large numbers everywhere, which mean nothing. The scorer is one
# linear layer and learns from bag labels alone. One more is told the truth of every snippet, to
# show what could be reached.

# %% tags=["core"]
WIDTH, LENGTH = 16, 32  # numbers a snippet, snippets a bag


def make_bags(seed, bags=80):
    g = torch.Generator().manual_seed(seed)
    x, place = torch.randn(bags, LENGTH, WIDTH, generator=g), torch.arange(LENGTH)
    label = (torch.arange(bags) % 2).float()
    start = torch.randint(0, LENGTH - 6, (bags, 1), generator=g)
    length = torch.randint(2, 7, (bags, 1), generator=g)
    truth = label[:, None] * ((place >= start) & (place < start + length))
    x[..., 0] += 3 * truth  # all that an anomaly is
    glitch = torch.rand(bags, LENGTH, 1, generator=g) < 0.02
    return torch.where(glitch, 8 * torch.randn(x.shape, generator=g), x), label, truth


DIVISORS = {"maximum (K = 1)": 1000, "Top-K (K = 3)": 16, "mean (K = 32)": 1, "told the truth": 0}


def recover(divisor, seed):
    """AP (%) over snippets of fresh bags, learned from bags pooled with K = T // divisor + 1."""
    x, label, truth = make_bags(seed)
    torch.manual_seed(seed)
    scorer, lengths = nn.Linear(WIDTH, 1), torch.full((len(x),), LENGTH)
    optimiser = torch.optim.Adam(scorer.parameters(), lr=0.05)
    for _ in range(200):
        s = scorer(x).squeeze(-1)
        told = F.binary_cross_entropy_with_logits(s, truth)
        loss = losses.topk_bce(s, label, lengths, divisor) if divisor else told
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fresh, _, truth = make_bags(seed + 1000)
    truth = truth.flatten().numpy()
    return 100 * average_precision(scorer(fresh).detach().flatten().numpy(), truth, 1 - truth)


# %% [markdown] tags=["core"]
# Guess first: which of the three will stand nearest to the scorer that was told the truth, and
# which will most often find nothing? Each dot is one seed: other bags, other first weights.

# %% tags=["nbval-ignore-output", "core"]
found = {name: [recover(d, seed + s) for s in range(10)] for name, d in DIVISORS.items()}
plots.seeds_dotplot(found, xlabel="AP over the snippets of fresh bags (%)")
plt.show()
for name, values in found.items():
    told = f"mean {np.mean(values):.0f}, from {min(values):.0f} to {max(values):.0f}"
    print(f"{name:16} {told}; {sum(value < 10 for value in values)} of {len(values)} below 10")
print(f"chance: {100 * make_bags(seed)[2].mean():.0f}")

# %% [markdown] tags=["core"]
# From one label a bag, Top-K comes close to the scorer that was told everything, on all seeds but
# one. The maximum stays below, and on several seeds at chance: whether the one snippet that teaches
# is the right one is partly luck. The mean has to raise *all* snippets of a bag, so it learns
# whatever happens to tell these eighty bags apart. Nor is Top-K immune, as that seed says: what is
# chosen learns, and what learns is chosen again. But K snippets have to be wrong together.
#
# One caution for all notebooks: MIL learns *what occurs in anomalous bags only*. If fights were
# always filmed at night, darkness would make a fine anomaly.
#
# ## 5. One snippet is not enough
#
# Let a video be one number a snippet, how bright it is: `0 0 0 1 0 0 0` is a camera flash,
# `0 0 1 1 1 0 0` a fire. The middle snippets are the same number; only the neighbours tell them
# apart. And many snippets inside events do not show them at all: the camera turns away, an editor
# cuts to something else.
#
# AVadCLIP's **video encoder** gives each snippet three kinds of context.
#
# **Windows.** A Transformer's attention lets a snippet look at others. To look everywhere is much
# freedom to learn coincidences, so attention stays inside **windows** of $W$ snippets that do not
# overlap: $i$ may look at $j$ if $\lfloor i/W \rfloor = \lfloor j/W \rfloor$.
#
# **Look-alikes.** A **graph convolution** replaces each snippet by a weighted sum over others; a
# matrix of weights $(T, T)$, the **adjacency**, says who counts how much. The first graph starts
# from cosines; what is not above 0.7 is set to 0; then a softmax over each row.
#
# **Neighbours in time.** The second needs no features: the weight is $e^{-|i-j|/e}$, with $e$ once
# more as the length scale, in snippets.

# %% tags=["core"]
three = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])  # three snippets of length 1
weights = temporal.similarity_adjacency(three[None], torch.ones(1, 3, dtype=torch.bool))[0]
print("cosines\n", (three @ three.T).numpy().round(2))
print("similarity adjacency\n", weights.numpy().round(2))
near = temporal.distance_adjacency(8)[0].numpy().round(2)
print("distance adjacency, 0, 1, 2, ... snippets away:", near)

# %% [markdown] tags=["core"]
# Snippets 0 and 2 have nothing in common, their edge was cut, and still it weighs something: the
# cut sets the *cosine* to 0, and softmax turns 0 into $e^0 = 1$, where the best edge has $e^1$.
# (The paper does not mention it; the authors' code does it.) So this graph is part look-alikes,
# part mean of the whole video. Here are the three on *many labels*; row $i$ shows where snippet $i$
# looks, darker is more, and the marks along both axes are snippets of true events. Do the events
# form blocks?

# %% tags=["main-figure", "core"]
# What each snippet of a video sees: its window, its look-alikes, its neighbours in time.
video_TD = torch.from_numpy(np.array(store.video(running["many labels"]), np.float32))[:190]
snippets, W = len(video_TD), settings.model.window
exists = torch.ones(1, snippets, dtype=torch.bool)
number = torch.arange(snippets) // W
alike = temporal.similarity_adjacency(video_TD[None], exists)[0]
unit = F.normalize(video_TD, dim=1)
edges = unit @ unit.T > settings.model.similarity_threshold
panels = {
    f"windows (W = {W})": number[:, None] == number,
    "look-alikes (raw features)": alike,
    "neighbours in time": temporal.distance_adjacency(snippets),
}
truth = store.frame_truth([running["many labels"]]).reshape(-1, store.stride).mean(axis=1)
marks = np.flatnonzero(truth[:snippets] > 0.5)
fig, axes = plt.subplots(1, 3, figsize=(plots.WIDTH, 3.3))
for ax, (title, matrix) in zip(axes, panels.items(), strict=True):
    ax.imshow(matrix.numpy(), cmap="Blues", vmin=0, interpolation="nearest")
    for along in ((marks, marks * 0 - 2), (marks * 0 - 2, marks)):
        ax.plot(*along, "s", color=plots.TRUTH, ms=2.5)
    ax.set(title=title, xlabel="snippet j (is seen)")
    ax.set(xlim=(-3, snippets - 0.5), ylim=(snippets - 0.5, -3))
axes[0].set_ylabel("snippet i (sees)")
plt.show()
print(f"{snippets} snippets; pairs that are edges of the similarity graph: all", end=" ")
print(f"{edges.float().mean():.0%}, event with event {edges[marks][:, marks].float().mean():.0%}")

# %% [markdown] tags=["core"]
# Do not expect much of the middle panel. It is drawn from *raw* features, on which most pairs are
# edges: pictures of one video resemble each other, whatever happens in them. (The encoder draws it
# from what its Transformer made of them, where likeness is partly learned.)
#
# The whole encoder is the windowed Transformer, then two graph layers on each adjacency, side by
# side, and a linear layer that joins them. Its output is $x_v$, from which every later notebook
# starts. (`masked` in the code below: zeros that only fill up a batch take no part. In the authors'
# code, `padding="leaking"`, they do.)

# %% tags=["core"]
print(inspect.getsource(temporal.VideoEncoder.forward))

# %% [markdown] tags=["core"]
# ## 6. What does context buy?
#
# Now everything together, on pictures alone. A detector of this package is a class with two
# methods, what it computes and what it minimises. This one is AVadCLIP's head, a small feed-forward
# network with one logit a snippet, on bare snippets or on the video encoder; the loss is the Top-K
# loss, and nothing else. The *weak* labels of a held-out tenth of the training videos decide which
# epoch is kept.


# %% tags=["nbval-ignore-output", "core"]
@register("lesson_bag")
class Bag(Detector):
    """A logit a snippet, learned from labels of bags."""

    max_snippets = settings.model.max_snippets

    def __init__(self, settings, context):
        super().__init__(settings)
        m = settings.model
        windows = {"blocks": m.blocks, "window": m.window, "max_snippets": m.max_snippets}
        context = settings.options["context"]
        self.encoder = temporal.VideoEncoder(m.dim, **windows) if context else None
        self.head = AnomalyHead(m.dim)

    def forward(self, batch):
        x, mask = batch.video, temporal.length_mask(batch.lengths, batch.snippets)
        x = x if self.encoder is None else self.encoder(x, mask)
        return Output(anomaly_logits=self.head(x), mask=mask)

    def loss(self, output, batch):
        anomalous = 1 - batch.labels[:, 0]  # class 0 is normal
        return {"total": losses.topk_bce(output.anomaly_logits, anomalous, batch.lengths)}


CONTEXTS = {"single snippets": False, "windows and graphs": True}
given, scores = dict(scale=scale, dim=store.dim, seed=seed, epochs=epochs, device=device), {}
for name, context in CONTEXTS.items():
    own = make_config(detector="lesson_bag", options={"context": context}, **given)
    result = train_or_load(own, store, progress=False)
    logits = predict_store(result.model, store, test).anomaly_logits
    scores[name] = expit(logits.astype(float))  # in double: single precision ties what is near 1
    size = sum(p.numel() for p in result.model.parameters())
    print(f"{name:18} {size:9,} parameters, epoch {result.chosen_epoch} of {epochs} kept")

# %% [markdown] tags=["core"]
# Beside them stand the bare class words of 01, on pictures alone. Every rule on single snippets is
# shown a second time, followed by the median of five snippets, which is context too, and free.
# Besides the AP of all frames there are two columns: the AP within the anomalous videos, where
# *when* counts more than *which*; and section 4's question, of the K snippets that Top-K would
# choose in an anomalous video, how many lie in an event?

# %% tags=["core"]
lengths = store.snippets[test]
positive, negative = snippet_truth(store.frame_truth(test), lengths, store.stride)
own = np.split(np.arange(lengths.sum()), np.cumsum(lengths)[:-1])  # of each video: its snippets
event = positive > store.stride / 2
anomalous = np.concatenate([at for at in own if event[at].any()])  # their snippets
tower, prompts = load_text(store.encoder, store.classes.words, dim=store.dim)
class_text = TextualPrompt(tower, prompts, before=0, after=0)().detach()  # bare words


def ap_of(score, at=slice(None)):
    return 100 * average_precision(score[at], positive[at], negative[at])


def median_of_five(score):
    return np.concatenate([median_filter(score[at], 5, mode="nearest") for at in own])


def chosen_right(score):
    """Share of the K highest snippets of each anomalous video that lie in an event, %."""
    tops = [at[np.argsort(-score[at])[: len(at) // 16 + 1]] for at in own if event[at].any()]
    return 100 * np.mean([event[top].mean() for top in tops])


def asked(i, senses):
    """(T,) one minus the probability of normal, by class words and the mean of some senses."""
    found = [x for x in (getattr(store, sense)(i) for sense in senses) if x is not None]
    found = [torch.from_numpy(np.array(x, np.float32))[None] for x in found]
    maps = [alignment_map(x, class_text[None]) for x in found]
    return 1 - torch.stack(maps).mean(dim=0)[0].softmax(dim=-1)[:, 0].numpy()


# %% [markdown] tags=["core"]
# All rows beside each other; *no idea* gives every snippet the same score.

# %% tags=["nbval-ignore-output", "core"]
scores["class words"] = np.concatenate([asked(i, ["video"]) for i in test])
rows = {"no idea": np.zeros(len(event))}
for name in ("class words", "single snippets"):
    rows |= {name: scores[name], f"{name}, median of 5": median_of_five(scores[name])}
rows["windows and graphs"] = scores["windows and graphs"]
table = {}
for name, score in rows.items():
    table[name] = {"frame AP": ap_of(score), "within anomalous": ap_of(score, anomalous)}
    table[name]["Top-K right"] = chosen_right(score)
table["no idea"]["Top-K right"] = 100 * np.mean([event[at].mean() for at in own if event[at].any()])
print("in %; one training each\n" + pd.DataFrame(table).T.round(1).to_string())
for name in CONTEXTS:
    about = dict(dataset=dataset, detector=f"pictures, {name}", split="test", seed=seed)
    record("frame_ap", table[name]["frame AP"] / 100, **about)

# %% [markdown] tags=["core"]
# One training each, but many test videos: draw them anew, with replacement; the brackets hold
# the middle 95 % of the 200 differences. (How much they depend on the *seed* takes many trainings,
# and 08.)

# %% tags=["nbval-ignore-output", "core"]
generator = np.random.default_rng(seed)
draws = [generator.integers(0, len(own), len(own)) for _ in range(200)]
draws = [np.concatenate([own[v] for v in videos]) for videos in draws]  # snippets
drawn = {n: np.array([ap_of(s, at) for at in draws]) for n, s in rows.items() if n != "no idea"}
for name, values in drawn.items():
    gap = drawn["windows and graphs"] - values
    if name != "windows and graphs":
        low, high = np.percentile(gap, [2.5, 97.5])
        print(f"windows and graphs - {name:29} {gap.mean():+5.1f} points [{low:+.1f}, {high:+.1f}]")

# %% [markdown] tags=["core"]
# The two rows below the words say that the labels of videos did teach snippets: compare them with
# *no idea*. And what context buys is the last row against the one above it, for a median is the
# context that anyone gets for nothing; where an interval holds zero, nothing was shown.
#
# Does the last row lead in the other two columns at all? Where it does not, context tells *which*
# video is anomalous rather than *when*. A similarity graph whose cut edges keep their weight hands
# every snippet a part of the whole video. AP pools all frames of all videos and pays for either
# skill.
#
# Context has a price, too: it fills the gaps inside events, and smears what it found over their
# borders. Here is the mean confidence inside events, in the four snippets on either side of one,
# and in normal videos, where all of it is a false alarm:

# %% tags=["nbval-ignore-output", "core"]
beside = [binary_dilation(event[at], iterations=4) & ~event[at] for at in own]
calm = [np.full(len(at), not event[at].any()) for at in own]
places = {"inside": event, "beside": np.concatenate(beside), "normal": np.concatenate(calm)}
for name in CONTEXTS:
    levels = {place: scores[name][at].mean() for place, at in places.items()}
    ratio = levels["beside"] / levels["inside"]
    told = ", ".join(f"{place} {level:.2f}" for place, level in levels.items())
    print(f"{name:18} {told}; beside / inside {ratio:.2f}")

# %% [markdown] tags=["core"]
# The last number says what part of an event's confidence its surroundings get. Training hardly
# minds. In an anomalous bag it is enough that K snippets are high, and nobody ever said where an
# event ends; in a normal one only the K highest are pushed down.
#
# The same on our three videos; truth is shaded, and neither detector has seen it.

# %% tags=["main-figure", "nbval-ignore-output", "core"]
# Confidence over time on three test videos, one snippet at a time and in context; truth shaded.
words = {None: "anomaly", **dict(zip(store.classes.codes, store.classes.words, strict=True))}
styles = {
    "single snippets": dict(color=plots.BASELINE, ls="--", lw=1.6),
    "windows and graphs": dict(color=plots.MODEL, lw=2.2),
}
fig, axes = plt.subplots(len(running), 1, figsize=(plots.WIDTH, 1.9 * len(running)))
for ax, (role, row) in zip(axes, running.items(), strict=True):
    at = own[list(test).index(row)]
    time = np.arange(len(at) + 1) * store.stride / FPS
    for name, style in styles.items():
        a, hit = scores[name][at], event[at]
        ax.stairs(a, time, baseline=None, label=name, **style)
        inside = f"{a[hit].mean():.2f}" if hit.any() else "none"
        print(f"{role:12} {name:18} in the event {inside}, elsewhere {a[~hit].mean():.2f}")
    ax.set(ylim=(-0.03, 1.03), xlim=(0, time[-1]), ylabel="confidence")
    plots.shade(ax, store.segments(row), fps=FPS, names=words)
    ax.set_title(role, pad=14)
axes[-1].set_xlabel("time (s)")
fig.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside upper right")
plt.show()

# %% [markdown] tags=["core"]
# *Sound saves*: from about 5.3 to 7.3 s an editor cuts away from the first crash. Single snippets
# cannot know that it goes on; does the line in context? *Sound lies*, a normal video: which bumps
# of the single snippets are gone in context? And in both videos with events: does the line in
# context come down between them, or does it know the video and not the moment?
#
# ## 7. The scoreboard
#
# New are detectors of one sense and DeepMIL, where the study's file (08) holds them. (*Vision only*
# is 07's student without a teacher: section 6's last row with one block, a wider window, one more
# convolution, and the parts of 04 and 05; *audio only* is the same on sounds.)

# %% tags=["nbval-ignore-output", "core"]
board = study.results()
board = board[board["store"] == store.digest]  # numbers of this very store, or none
words_only = np.concatenate([asked(i, ["video", "audio"]) for i in test])  # 01's two bars
known = {"chance": positive.sum() / (positive + negative).sum()}
known["class words, untrained"] = ap_of(words_only) / 100
known["class words, median filter"] = ap_of(median_of_five(words_only)) / 100
scoreboard(board, upto="02", known=known, data=dataset)
plt.show()
missing = {"vision", "audio", "deepmil, vision"} - set(board["variant"])
print("not in the study's file yet:", "; ".join(sorted(missing)) or "nothing")

# %% [markdown] tags=["core"]
# ## Recap
#
# - say what a bag is, and why a mean breaks and a maximum is blind: a video, whose label holds for
#   all its snippets together; the pooling decides who learns; a mean pushes everyone, a maximum a
#   single snippet, right or wrong.
# - compute the Top-K loss of a video by hand and point at the snippets that learn from it:
#   cross-entropy of the mean of the K highest confidences, K = floor(T/16) + 1; these K go up in an
#   anomalous video and down in a normal one, and padding never moves.
# - say the same as a ranking, as an older detector does: the highest confidence of an anomalous bag
#   must lie above that of a normal one by a margin of 1; one snippet a bag learns.
# - draw what a snippet sees through windows and through two graphs: blocks with hard borders; its
#   look-alikes, over a floor of everything that softmax leaves; a band that fades with distance.
# - measure what context buys, against a filter that needs no training: the table, with an interval
#   over test videos, and the price beside it, in snippets next to events.
#
# One sense has been silent so far. Notebook [03](03_adaptive_fusion.ipynb) asks when the model
# should listen.
