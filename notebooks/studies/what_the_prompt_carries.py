# %% [markdown]
# # Lab note · What the prompt carries
#
# **Question:** The audio-visual prompt puts a video's imprint on the class words: whose imprint is
# it, and how loud would it have to be to matter?
#
# **Prerequisites:** [04](../04_prompts.ipynb), which builds the prompt and finds a whisper in it
#
# **Minutes:** 11 to read; 1 on two CPU cores
#
# **Reads:** the feature store (Soundstage unless you say otherwise), the teacher that ships with
# it, the results of the study
#
# **Writes:** on other data a trained detector to the cache

# %% tags=["parameters"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
scale: str = "soundstage"  # how large, where no detector ships: soundstage or xd
seed: int = 0  # of the training where no detector ships, and of whose imprint goes to whom
device: str = "auto"  # where to compute: auto, cpu, cuda

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from avadclip_lite.config import find_device, make_config
from avadclip_lite.dataset import Batch
from avadclip_lite.evaluate import average_precision, event_metrics, snippet_truth
from avadclip_lite.experiments import study
from avadclip_lite.experiments.cache import train_or_load
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.prompts import alignment_map, global_vector
from avadclip_lite.viz import plots
from avadclip_lite.viz.lesson import open_stage, shipped

plots.use_style()
check_parameters(globals())  # plain papermill hands lists over as text
store, where = open_stage(data), find_device(device)
teacher = shipped(store, "teacher")
if teacher is None:  # other data: train one
    settings = make_config(scale=scale, dim=store.dim, seed=seed, device=device)
    teacher = train_or_load(settings, store, progress=False).model
teacher = teacher.to(where).eval()
prompt = teacher.av_prompt

# %% [markdown]
# ## 1. A pass that is kept
#
# For every test video (a long one in chunks, as evaluation cuts it) keep what the prompt is made
# of: the fused features $x_{av}$, and the video's global vector $x_p$ of equation 4, a unit vector.
# All that follows bends the class words $x_c$ by one imprint or another and lays them against the
# *same* features, so that any difference is the imprint's. Nothing is trained.

# %%
test = store.indices("test")
lengths = store.snippets[test]
features, vectors, chunk_of = [], [], []  # of each chunk: (T, D), (D,), and its video
with torch.no_grad():
    x_c = teacher.textual_prompt()
    for v, row in enumerate(test):
        video, mask = store.video(row), store.audio_mask(row)[: lengths[v]]
        sound = np.zeros_like(video) if store.audio(row) is None else store.audio(row)
        for start in range(0, len(video), teacher.max_snippets):
            own = slice(start, start + teacher.max_snippets)
            seen, heard, there = (torch.tensor(x[own])[None] for x in (video, sound, mask))
            count = torch.tensor([seen.shape[1]])
            batch = Batch(video=seen.float(), audio=heard.float(), audio_mask=there, lengths=count)
            output = teacher(batch.to(where))
            features.append(output.features[0])
            vectors.append(global_vector(output.features, output.confidence)[0])
            chunk_of.append(v)
x_p, chunk_of = torch.stack(vectors), np.array(chunk_of)
print(f"{len(test)} videos, {len(chunk_of)} chunks; class words of length", end=" ")
print(f"{x_c.norm(dim=1).mean():.1f}, imprints of length 1 before they are shared out")

# %% [markdown]
# ## 2. Whose imprint
#
# Six imprints for each video. *Its own*. That of *another video of the same class*, and *of another
# class*. The *mean* of all videos. Its own *turned around*. *None*. They go in order from what an
# imprint should carry (this video), over what it might (the class), to what it must not (a
# constant, the opposite). And two ways to share it out: by the paper's softmax over classes, and
# *uniform*, the whole vector to every class, which is what the authors' code computes (04).

# %%
MEASURES = ("AP", "mean mAP", "moved")
positive, negative = snippet_truth(store.frame_truth(test), lengths, store.stride)
segments = [store.segments(row) for row in test]
names = [store.videos[row].name for row in test]


@torch.no_grad()
def scored(imprint, gain=1.0, weights="softmax"):
    """(S, C) class probabilities, class words bent by ``gain`` times the imprints (V, D)."""
    share = torch.ones(len(imprint), len(x_c), device=where)
    if weights == "softmax":
        share = prompt.similarity(x_c, imprint)  # equation 5
    u = x_c + gain * share[..., None] * imprint[:, None]
    bent = prompt.ffn(u) + x_c  # equation 7
    maps = [
        alignment_map(x[None], own[None], teacher.settings.model.temperature)[0]
        for x, own in zip(features, bent, strict=True)
    ]
    return torch.cat(maps).softmax(dim=-1).cpu().numpy()


def measured(probs):
    """AP and mean mAP, percent, and how far probabilities moved from those with its own."""
    found, *_ = event_metrics(names, probs, lengths, segments, store.classes, store.stride)
    ap = average_precision(1 - probs[:, 0], positive, negative)
    moved = np.abs(probs - usual).sum(axis=1).mean() / 2
    return 100 * ap, 100 * found.get("map_anomaly", np.nan), 100 * moved


# %% [markdown]
# The third measure, *moved*: by how many points of probability a snippet's classes differ from
# those with its own imprint, in the mean.

# %% tags=["nbval-ignore-output"]
rng = np.random.default_rng(seed)
first = store.labels(test).argmax(axis=1)[chunk_of]  # the first class of each chunk's video
alike = (first[:, None] == first) & (chunk_of[:, None] != chunk_of)
others = {"same class": alike, "another class": first[:, None] != first}
others = {name: [rng.choice(np.flatnonzero(row)) for row in one] for name, one in others.items()}
IMPRINTS = {"its own": x_p} | {f"of {name}": x_p[other] for name, other in others.items()}
IMPRINTS |= {"the mean": F.normalize(x_p.mean(dim=0), dim=0).expand_as(x_p)}
IMPRINTS |= {"turned around": -x_p, "none": torch.zeros_like(x_p)}
usual, rows = scored(x_p), {}
for weights in ("softmax", "uniform"):
    for name, imprint in IMPRINTS.items():
        rows[weights, name] = measured(scored(imprint, weights=weights))
table = pd.DataFrame(rows, index=MEASURES).T
print(table.to_string(float_format="{:.2f}".format))

# %% [markdown]
# All APs lie within a fifth of a point. Whose imprint a video gets does not matter; nor whether
# it is shared out or given whole, which is louder by the number of classes. In the finished
# detector the module is a feed-forward network on seven words.
#
# ## 3. Louder
#
# Is the imprint empty, or only too quiet to be heard beside class words ten times its length? Turn
# it up: multiply it by a gain before it is added. If it carries something, then at some gain its
# own must be better than another's, and best would be a gain above zero. If it is empty, all lines
# fall together. Guess before you look: does *same class* go with its own, or with another class?

# %% tags=["main-figure", "nbval-ignore-output"]
# The imprint turned up in the finished teacher: what it adds to the alignment branch's AP, by whose
# it is. Left: shares by the paper's softmax; right: the whole vector, as released.
gains = {"softmax": (1, 3, 10, 30, 100), "uniform": (1, 3, 10, 30)}
shown = {"its own": ("o-", plots.MODEL), "of same class": ("^--", "#009E73")}
shown |= {"of another class": ("s-.", plots.BASELINE), "turned around": ("v:", plots.TRUTH)}
fig, axes = plt.subplots(1, 2, figsize=(plots.WIDTH, 3.4), sharey=True)
for ax, (weights, levels) in zip(axes, gains.items(), strict=True):
    ax.axhline(0, color="#999999", lw=1)
    for name, (look, colour) in shown.items():
        found = [measured(scored(IMPRINTS[name], gain, weights)) for gain in levels]
        ap, mean_ap, _ = np.array(found).T
        ax.plot(levels, ap - table.loc[(weights, "none"), "AP"], look, color=colour, label=name)
        print(f"{weights}, {name:17} AP", " ".join(f"{x:5.2f}" for x in ap), end="; ")
        print("mean mAP", " ".join(f"{x:5.1f}" for x in mean_ap))
    ax.set(xscale="log", xlabel="gain", title=weights, ylim=(-1.2, 0.6))
axes[0].set(ylabel="points of AP over no imprint")
axes[0].legend(frameon=False, fontsize="small", loc="lower left")
plt.show()

# %% [markdown]
# (Lines leave the picture below; the print has their numbers.) It is not empty. On the left, turned
# up ten times and more, the four stand in the order in which they should: its own above none, that
# of the same class between its own and another class, another class and the opposite below none. So
# the imprint tells something of the class, and something of the video. But at its best gain that is
# worth a quarter of a point, and further up it drowns the words; the whole vector, which has no
# shares, does so earlier. And the gain was looked for on the test set, so read the top as "at most
# so much".
#
# ## 4. Why so little
#
# What could the imprint add? The features that the class words are laid against come from the same
# video. If they hold already what $x_p$ says, nothing is gained by saying it twice. How much of
# each does $x_p$ share: with the snippets of its own video, of the same class, of another?

# %% tags=["nbval-ignore-output"]
unit = [F.normalize(x, dim=1) for x in features]
pairs = {"its own": np.arange(len(unit))} | {f"of {name}": one for name, one in others.items()}
values = {
    name: np.array([(unit[v] @ x_p[u]).mean().item() for v, u in enumerate(other)])
    for name, other in pairs.items()
}
fig, ax = plt.subplots(figsize=(plots.WIDTH * 0.6, 2.8))
for name, value in values.items():
    look, colour = shown[name]
    ax.hist(value, np.linspace(-1, 1, 41), histtype="step", color=colour, lw=2, label=name)
    print(f"cosine of a video's snippets to the imprint {name:17} {value.mean():.2f}")
ax.set(xlabel="mean cosine of a video's snippets to an imprint", ylabel="chunks")
ax.legend(frameon=False, fontsize="small", loc="upper left")
plt.show()

# %% [markdown]
# There is the reason. The snippets of a video point the way of their own imprint as it is, and,
# less clearly, that of another video of the class; another class's is at right angles in the mean.
# A snippet that is laid against the class words has brought along what the imprint could tell them.
#
# ## 5. Trained without
#
# An exchange in a finished detector does not say what training without the module gives. The study
# trains both; mind that the row without lacks the feed-forward network, too.

# %% tags=["nbval-ignore-output"]
frame, pair = study.results("main"), ("adaptive", "no audio-visual prompt")
own = frame[frame["row"].isin(pair) & (frame["store"] == store.digest)]
seeds = own.groupby("seed")["row"].nunique().eq(2).sum()
for measure in ("frame_ap_classification", "frame_ap_alignment", "map_anomaly"):
    if seeds < 2:
        print(f"{measure}: the study's file has {seeds} seeds of both on this data")
    else:
        print(f"{measure}: {study.paired(own, *pair, measure)}")

# %% [markdown]
# Where an interval holds zero, these seeds cannot tell. Where one does not, training with the
# module is better or worse than without; and if section 2 holds for more than one detector, the
# imprint that is there in the end is not what does it. Left as causes are the feed-forward network,
# which needs no video, and whatever the module does while the others learn. A row of the study with
# the network and a constant imprint would tell; there is none yet.

# %% [markdown]
# ## Answer
#
# As trained, it is nobody's: its own, another's, the opposite and none give the same result, by
# shares or whole. What training with the module buys section 5 prints, and it is not bought by what
# the finished prompt knows of a video. The imprint is not empty, for turned up some ten times it
# ranks its own above the class's above another's, as it should. It is beside the point: what it
# says the snippets say already. All of this is one finished teacher on synthetic data, whose class
# words are ten times as long as the imprint; that length belongs to the text tower, and should be
# the first thing to look at with another one.
