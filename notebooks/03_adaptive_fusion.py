# %% [markdown]
# # 03 · Adaptive fusion
#
# **Question:** When should the model listen?
#
# **You will be able to:**
#
# - put sight and sound together in four ways, and say what each of them cannot do
# - build the gate and the residual of the adaptive fusion, and say what each is for
# - compare the four kinds over paired seeds without claiming more than the seeds show
# - watch how much sound a trained detector lets in, and what it does when the microphone fails
#
# **Prerequisites:** [01](01_encoders.ipynb) (features of sound and picture),
# [02](02_temporal_mil.ipynb) (the video encoder, Top-K, AP)
#
# **Minutes:** 2 on two idle CPU cores; 25 to teach
#
# **Reads:** the feature store (Soundstage unless you say otherwise), the ten-seed results that ship
#
# **Writes:** trained detectors to the cache, numbers to `metrics.json`

# %% tags=["parameters"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
form: str = "paper"  # what is computed: paper or released
scale: str = "soundstage"  # how large: soundstage or xd
seed: int = 0  # of the four detectors that are trained here, one of each kind
epochs: int = 15  # passes over the training videos
device: str = "auto"  # where to train: auto, cpu, cuda

# %% tags=["setup"]
import copy
import math
import warnings
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from avadclip_lite import fusion, temporal
from avadclip_lite.compare import paper
from avadclip_lite.config import SAMPLE_RATE, make_config
from avadclip_lite.dataset import Batch
from avadclip_lite.encoders import load_encoders
from avadclip_lite.evaluate import average_precision, evaluate, predict_store, snippet_truth
from avadclip_lite.experiments import study
from avadclip_lite.experiments.cache import train_or_load
from avadclip_lite.experiments.metrics import record
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.viz import plots
from avadclip_lite.viz.lesson import FPS, examples, open_stage

plots.use_style()
check_parameters(globals())  # plain papermill hands lists over as text
warnings.filterwarnings("ignore", message="IProgress not found")  # progress bars; none are shown
store = open_stage(data)
running = examples(store)  # the rows of the three videos that go through all notebooks
settings = make_config(form=form, scale=scale, dim=store.dim, seed=seed)
dataset = store.path.name if data else "Soundstage"
usual = not data and form == "paper" and epochs >= 15  # the run whose results are asserted

# %% [markdown]
# ## 1. Three snippets, two senses
#
# From 02 every snippet has a vector of what is *seen* in its context, $x_v$. Here it gets a second
# one, of what is *heard*: $x_a$. Both are in the same space (01: the audio encoder learned to
# imitate the picture encoder), so it makes sense to put them together into one, $x_{av}$, from
# which the detector then reads its answers. This putting together is called **fusion**, and this
# notebook is about how to do it.
#
# It is not obvious that there is a *how*. So take the smallest case in which it matters: three
# snippets of three numbers each, which we name *street*, *danger* and *party*.
#
# | snippet | the picture shows | the microphone hears | should be |
# |---|---|---|---|
# | 0 | a street | nothing | normal |
# | 1 | a street | a bang, off camera | **dangerous** |
# | 2 | fireworks | a bang three times as loud | normal |
#
# The audio features cannot tell one bang from the other: the ear hears *danger*, in snippet 2 more
# of it than in snippet 1. Only the picture can say that the second bang is a party. First
# **addition**: $x_{av} = x_v + x_a$.

# %%
NAMES = ["street", "danger", "party"]
v = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # (T, D) seen
a = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.0]])  # (T, D) heard


def show(**features):
    tables = {name: pd.DataFrame(x.numpy().round(2), columns=NAMES) for name, x in features.items()}
    print(pd.concat(tables, axis=1).rename_axis("snippet").to_string())


show(x_v=v, x_a=a, added=v + a)

# %% [markdown]
# Addition trusts the ear blindly: the fireworks become the most dangerous snippet of the three. And
# there is nothing in it that could learn better.
#
# Next **concatenation**: lay both vectors side by side, $j = [x_v ; x_a]$, six numbers a snippet,
# and let a linear layer bring them back to three. (Its weights would be learned; we choose them.)
# Street and party pass through. For *danger* we take what is heard, *minus three times* the party
# that is seen, so that the fireworks are cancelled exactly:

# %%
j = torch.cat([v, a], dim=1)  # (T, 2D)
W = torch.tensor(
    [  # seen: street danger party   heard: street danger party
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, -3.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
    ]
)
print(j.numpy())
print("snippet 2, danger: 1 x 0 (seen) - 3 x 1 (party) + 1 x 3 (heard) =", float(j[2] @ W[1]))
show(x_v=v, x_a=a, concatenated=j @ W.T)

# %% [markdown]
# Better: *danger* is where it belongs. But we fitted the 3 to this very bang. What if the fireworks
# are louder? A linear layer adds up: it can subtract something for the party, but every further bit
# of loudness counts in full, whatever the picture shows.
#
# What we want is not to *subtract* something from the sound but to *turn it down* when the picture
# explains it. Turning down is a multiplication, and that is the idea of the **adaptive fusion**
# (arXiv 2504.04495, equations 1 to 3). One layer computes a **gate** $w$ between 0 and 1 from both
# senses, another the **residual** $r$, what sound would add; and then
#
# $$w = \mathrm{sigmoid}(W_g\, j + b_g) \qquad
# r = W_2\,\mathrm{GELU}(W_1\, j + b_1) + b_2 \qquad x_{av} = x_v + w \odot r$$
#
# with $\odot$ number by number. For the toy, the residual is the sound itself, and the gate is open
# (near 1) unless a party is seen. Now turn up the fireworks, and compare *danger* of the three
# snippets in each kind:


# %%
def toy_gate(v, a):
    """Open, unless a party is seen: (T, D) in [0, 1]."""
    return torch.sigmoid(4 - 8 * v[:, [2]]).expand_as(a)


rows = {}
for loudness in (3, 6, 30):
    loud = a.clone()
    loud[2, 1] = loudness
    kinds = {
        "addition": v + loud,
        "concatenation": torch.cat([v, loud], dim=1) @ W.T,
        "gate and residual": v + toy_gate(v, loud) * loud,
    }
    for kind, x in kinds.items():
        rows[f"fireworks x {loudness}", kind] = x[:, 1].numpy().round(2)
print("danger of each snippet\n")
print(pd.DataFrame(rows, index=["0 street", "1 bang", "2 fireworks"]).T.to_string())

# %% [markdown]
# At threefold loudness concatenation and gate agree. Turned up, concatenation is as wrong as
# addition, while the gate lets about a fiftieth of the bang through. It is no wall either: a
# sigmoid is never zero, and a bang that is loud enough passes.
#
# Two more things are in the formula. First, **the picture is never touched**: $x_v$ enters with
# weight one, and whatever sound does is added on top. With concatenation the layer has to learn to
# leave the picture alone. Second, if there is *no* sound (a video without an audio track), the
# added term can be left out, and what remains is the video feature as it was.
#
# The fourth kind that the paper compares is **cross attention**: each snippet of the video asks
# (*query*), all snippets of the sound answer (*key*, *value*). There a picture may listen to a
# sound that was heard some seconds earlier; the other three take the sound of the same snippet
# only. It is the most general of the four, and the largest.
#
# ## 2. All four, built here
#
# In code they are a few lines each. The functions below take the package's modules for their
# weights and do all the arithmetic themselves; `audio_mask` says which snippets have sound, and
# what a kind does without it is part of the kind:
#
# - adaptive and addition add nothing, so that $x_v$ remains;
# - concatenation has no part that belongs to sound alone, it gets zeros;
# - cross attention does not ask the snippets without sound, and leaves a video without any as it
#   was.


# %%
def linear(layer, x):
    return x @ layer.weight.T + layer.bias


def normalised(layer, x):  # LayerNorm
    mean, variance = x.mean(dim=-1, keepdim=True), x.var(dim=-1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + layer.eps).sqrt() * layer.weight + layer.bias


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def my_gate(module, x_v, x_a):  # equation 1
    return torch.sigmoid(linear(module.gate_proj, torch.cat([x_v, x_a], dim=-1)))


def my_residual(module, x_v, x_a):  # equation 2
    return linear(
        module.residual_out, gelu(linear(module.residual_in, torch.cat([x_v, x_a], dim=-1)))
    )


def my_adaptive(module, x_v, x_a, audio_mask):  # equation 3
    return x_v + audio_mask[..., None] * my_gate(module, x_v, x_a) * my_residual(module, x_v, x_a)


def my_addition(module, x_v, x_a, audio_mask):
    return x_v + audio_mask[..., None] * x_a


def my_concatenation(module, x_v, x_a, audio_mask):
    return linear(module.project, torch.cat([x_v, audio_mask[..., None] * x_a], dim=-1))


def heads(module, x):  # (B, T, D) -> (B, H, T, D/H)
    return x.unflatten(-1, (module.heads, -1)).transpose(1, 2)


def my_attention(module, x_v, x_a, audio_mask):
    """Who listens to which sound: weights (B, H, T, T), and what the sounds say (B, H, T, D/H)."""
    query = heads(module, linear(module.query, normalised(module.norm_video, x_v)))
    key, value = linear(module.key_value, normalised(module.norm_audio, x_a)).chunk(2, dim=-1)
    scores = query @ heads(module, key).mT / math.sqrt(query.shape[-1])
    scores = scores.masked_fill(~audio_mask[:, None, None, :], -1e9)  # nobody asks the silent
    return scores.softmax(dim=-1), heads(module, value)


def my_cross_attention(module, x_v, x_a, audio_mask):
    weights, value = my_attention(module, x_v, x_a, audio_mask)
    answer = (weights @ value).transpose(1, 2).flatten(2)
    x = x_v + linear(module.out, answer)
    hidden = linear(module.ffn.fc1, normalised(module.norm_ffn, x))
    x = x + linear(module.ffn.fc2, hidden * torch.sigmoid(1.702 * hidden))
    return torch.where(audio_mask.any(dim=1)[:, None, None], x, x_v)


BUILT = {
    "cross_attention": my_cross_attention,
    "add": my_addition,
    "concat": my_concatenation,
    "adaptive": my_adaptive,
}
TITLES = {
    "cross_attention": "cross attention",
    "add": "addition",
    "concat": "concatenation",
    "adaptive": "adaptive",
}

# %% [markdown]
# Are they the package's? Random features of three videos, the last of them without a sound track,
# the second with a gap in it; weights drawn from the seed. For the adaptive fusion gate and
# residual are compared one by one as well.

# %%
torch.manual_seed(seed)
D = settings.model.dim
x_v, x_a = torch.randn(3, 20, D), torch.randn(3, 20, D)
everywhere = torch.ones(3, 20, dtype=torch.bool)
audio_mask = everywhere.clone()
audio_mask[1, 5:12] = False
audio_mask[2] = False

modules = {}
for kind, built in BUILT.items():
    modules[kind] = fusion.build_fusion(settings.override(fusion=kind).model)
    with torch.no_grad():
        for mask in (everywhere, audio_mask):
            package = modules[kind](x_v, x_a, None, mask)
            assert_close(built(modules[kind], x_v, x_a, mask), package, atol=1e-5, rtol=1e-5)
        untouched = torch.equal(package[2], x_v[2])
    print(f"{TITLES[kind]:15} agrees; without a track it gives back x_v: {untouched}")

adaptive = modules["adaptive"]
with torch.no_grad():
    assert_close(adaptive.gate(x_v, x_a), my_gate(adaptive, x_v, x_a), atol=1e-6, rtol=1e-5)
    assert_close(adaptive.residual(x_v, x_a), my_residual(adaptive, x_v, x_a), atol=1e-5, rtol=1e-5)
    w = adaptive.gate(x_v, x_a)
print(f"untrained gate: mean {w.mean():.1f}, from {w.min():.1f} to {w.max():.1f}")

# %% [markdown]
# The gate starts half open. And it is not one tap for the whole sound: there is one **for each
# snippet and each channel**, $D$ numbers at a time. Keep that in mind for section 5.
#
# ## 3. The four, trained
#
# Four detectors that differ in this one part. The other modules (the prompt of 04, the
# alignment loss of 05) are those of the paper; [06](06_teacher.ipynb) goes through the whole model,
# and you need no more of it here than its two answers: the **classification branch** gives a
# confidence for each snippet, the **alignment branch** a probability for each class, and one minus
# that of *normal* serves as an anomaly score as well. The table shows the AP (02) of either branch
# over the frames of the test videos, and the *mean mAP*, which asks for the right class at the
# right place (05).
#
# All four train from the same seed, on the same bags in the same order. The last columns look up
# what the result file of section 4 holds for the same configuration and seed.

# %% tags=["nbval-ignore-output"]
MEASURES = {
    "frame_ap_classification": "AP, classification branch",
    "frame_ap_alignment": "AP, alignment branch",
    "map_anomaly": "mean mAP, six classes",
}


def settings_of(kind):
    return make_config(
        form=form,
        scale=scale,
        dim=store.dim,
        seed=seed,
        epochs=epochs,
        device=device,
        selection="holdout",
        reload_best=False,
        fusion=kind,
    )


def known_results():
    """The study of fusion kinds, if there is one for the data that is open."""
    try:
        frame = study.results("fusion")
    except FileNotFoundError:
        return None
    frame = frame[frame.store == store.digest]
    return frame if frame.groupby("row").seed.nunique().min() > 1 else None


known = known_results()
models, reports, rows = {}, {}, {}
for kind, title in TITLES.items():
    result = train_or_load(settings_of(kind), store, progress=False)
    models[kind] = result.model.cpu()
    reports[kind] = evaluate(models[kind], store)
    metrics = reports[kind].metrics
    rows[title] = {name: 100 * metrics.get(key, np.nan) for key, name in MEASURES.items()}
    for key in MEASURES:
        if key in metrics:
            record(
                key,
                metrics[key],
                dataset=dataset,
                detector=f"fusion: {title}",
                branch="alignment" if key == "map_anomaly" else None,
                split="test",
                seed=seed,
                config=settings_of(kind),
                device=device,
            )
    if known is not None:
        filed = known[(known.row == title) & (known.seed == seed)] if usual else ()
        for key in ("frame_ap_classification", "frame_ap_alignment") if len(filed) else ():
            rows[title][f"file: {MEASURES[key]}"] = 100 * filed[key].item()
            # the same training; another machine rounds differently, and training amplifies it
            distance = abs(100 * filed[key].item() - 100 * metrics[key])
            assert distance < (15 if key == "frame_ap_classification" else 8), title
share = 100 * reports["adaptive"].metrics["positive_share"]
print(f"seed {seed}, %\n\n{pd.DataFrame(rows).to_string(float_format='{:.1f}'.format)}")
print(f"\n{share:.1f} % of the test frames are anomalous: the AP of a detector that guesses")
if usual:
    ap = {kind: report.metrics["frame_ap_alignment"] for kind, report in reports.items()}
    assert min(ap, key=ap.get) == "cross_attention"

# %% [markdown]
# That is one seed, and you may want to draw conclusions from it. Do not yet. A **seed** decides
# the random weights at the start, the order of the bags and which videos are held out; another
# seed gives other numbers for each row. (A tenth of the training videos is held out, and their
# weak labels choose the epoch that is kept; 06 explains.)
#
# ## 4. Ten seeds
#
# The package ships a file with the results of ten seeds for each of these configurations (and of
# many others; notebook 08 is about it). Below are mean and standard deviation over the seeds. At
# the end stand detectors with one sense only. In a table *of its own*, the paper's numbers for the
# four kinds. Mind what can be compared: Soundstage is synthetic and the paper's data is
# XD-Violence, so no number of one table has anything to do with a number of the other. What can be
# compared is the *order* of the rows.

# %%
if known is None:
    print("no study of this data; train it with: python -m avadclip_lite run --seeds 10 --data ...")
else:
    shown = known[known.row.isin([*TITLES.values(), "vision only", "audio only"])]
    table = study.table(shown, list(MEASURES)).rename(columns=MEASURES).rename_axis(None)
    print(f"{dataset}{'' if data else ' (synthetic)'}, test split, %\n\n{table.to_string()}\n")
names = {"ap": "AP", "map": "mean mAP"}
table = pd.DataFrame({row: pair._asdict() for row, pair in paper.FUSION.items()}).T
print("the paper (arXiv 2504.04495, Table 5), XD-Violence, %; it names no branch and no seeds\n")
print(table.rename(columns=names).to_string(float_format="{:.1f}".format))

# %% [markdown]
# Standard deviations of a single row tell how far a seed may land. Whether two rows *differ* is
# better asked seed by seed: subtract within each seed, so that what makes a seed easy or hard for
# both cancels, then put a 95 % interval around the mean of the ten differences. Where the interval
# holds zero, ten seeds cannot tell the two apart. (08 explains where the interval comes from.)
#
# In the figure every dot is one seed, the bar is the interval. Right of the dotted line the first
# named is better.

# %%
# Adaptive fusion against the others, the difference of each of ten paired seeds; bars are 95 %
# intervals of the mean.
COMPARED = [
    ("adaptive", "cross attention"),
    ("adaptive", "concatenation"),
    ("adaptive", "addition"),
    ("adaptive", "vision only"),
]
if known is not None:
    fig, axes = plt.subplots(1, 3, figsize=(plots.WIDTH * 1.1, 3.0), sharey=True)
    for ax, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        print(title)
        for place, (row, against) in enumerate(COMPARED):
            found = study.paired(known, row, against, measure)
            print(f"  {found}")
            if measure == "frame_ap_alignment" and {row, against} <= paper.FUSION.keys():
                claimed = paper.FUSION[row].ap - paper.FUSION[against].ap
                holds = {"higher": "the same order", "lower": "the other way round"}
                here = holds.get(found.verdict, "no order to be told")
                print(f"      paper, XD-Violence, one number: {claimed:+.1f} points; here: {here}")
            colour = "#999999" if found.verdict == "not distinguishable" else plots.MODEL
            y = np.full(len(found.differences), place)
            ax.plot(found.differences, y + 0.2, "o", color=colour, alpha=0.5, mew=0, ms=4.5)
            ax.plot([found.low, found.high], [place, place], color=colour, lw=3.5)
            ax.plot(found.mean, place, "|", color=plots.INK, ms=12, mew=2)
        ax.axvline(0, color="#666666", ls=":", lw=1.2)
        ax.set(title=title, xlabel="points")
    axes[0].set_yticks(range(len(COMPARED)), [f"{a}\nminus {b}" for a, b in COMPARED])
    axes[0].tick_params(axis="y", labelsize=8)
    axes[0].invert_yaxis()
    plt.show()

# %% [markdown]
# Read the verdicts and not the means, and the three panels separately.
#
# **Cross attention is last**, in the paper and here. Nothing in $x_a$ says *when* a sound was
# heard, so a picture can ask for *what* it wants to hear and not for *now*. (Neither paper nor
# release says how their cross attention is built; this is the usual one. One that knows about time
# might do better.)
#
# **The rest is not the paper's order.** There the adaptive fusion has the highest AP. Here it is
# behind addition and concatenation, two kinds without a gate. This should not be hidden, and it is
# not the first time: while Soundstage was being calibrated, addition and concatenation were seen
# above the adaptive fusion in two of the worlds that were tried and discarded (`data/README.md`). A
# stage made by hand is no judge of a method, and ten seeds of one data set say nothing about
# another. But on this data the gate does not pay. What does it do?
#
# ## 5. Watching the gate
#
# Back to the question of the title. The gate is *there* to decide when to listen, and it can be
# looked at. For our three videos, from top to bottom:
#
# 1. the confidence with sound (blue), and of the same detector without any (amber, dashed);
# 2. the gate $w$: its mean over the $D$ channels, and as a band the middle eight tenths of them;
# 3. how much sound is really added: the length of $w \odot r$ in units of the length of $x_v$.
#
# The left video is *sound saves*, an event heard and not seen; the middle one *sound lies*, with
# fireworks and flashes; on the right, in *many labels*, the microphone fails half-way (dotted line)
# and from there on there is no sound, which `audio_mask` says. Before you look: what *should* the
# gate do in each of the three?

# %% tags=["main-figure", "nbval-ignore-output"]
# When does it listen? Confidence, gate and added sound over the shaded truth for an event that is
# only heard, for sounds that lie, and for a microphone that fails half-way (dotted line).
adaptive = models["adaptive"]
test = store.indices("test")


def batch_of(row, most=settings.model.max_snippets):
    """A batch of one video; its ``audio_mask`` says which snippets have sound."""
    video = torch.from_numpy(np.array(store.video(row)[:most], np.float32))[None]
    sound, audio = store.audio(row), torch.zeros_like(video)
    if sound is not None:
        audio = torch.from_numpy(np.array(sound[:most], np.float32))[None]
    mask = torch.from_numpy(store.audio_mask(row)[: video.shape[1]])[None]
    lengths = torch.tensor([video.shape[1]])
    return Batch(video=video, audio=audio, audio_mask=mask, lengths=lengths)


def half_way(batch):
    """The same video, without sound in its second half."""
    first = torch.arange(batch.snippets) < batch.snippets // 2
    return replace(batch, audio_mask=batch.audio_mask & first)


@torch.no_grad()
def listen(batch):
    """One video through the detector: confidence and what happens in its adaptive fusion."""
    given = []
    hook = adaptive.fusion.register_forward_hook(lambda module, inputs, out: given.append(inputs))
    output = adaptive(batch)
    hook.remove()
    x_v, x_a = (x[0, : batch.snippets] for x in given[0][:2])
    w = adaptive.fusion.gate(x_v, x_a)
    r = adaptive.fusion.residual(x_v, x_a)
    added = w * r * batch.audio_mask[0, :, None]
    return {
        "confidence": output.confidence[0].numpy(),
        "gate": w.numpy(),
        "added": (added.norm(dim=-1) / x_v.norm(dim=-1)).numpy(),
        "residual": (r.norm(dim=-1) / x_v.norm(dim=-1)).numpy(),
        "push": (adaptive.anomaly(x_v + added) - adaptive.anomaly(x_v)).numpy(),
    }


fig, axes = plt.subplots(3, 3, figsize=(plots.WIDTH * 1.15, 5.2), sharex="col", sharey="row")
for column, (role, row) in enumerate(running.items()):
    video = batch_of(row)
    failing = role == "many labels"
    T = video.snippets
    time = np.arange(T) * store.stride / FPS  # when each snippet begins
    with_sound = listen(half_way(video) if failing else video)
    without = listen(replace(video, audio_mask=torch.zeros_like(video.audio_mask)))
    top, middle, bottom = axes[:, column]
    if failing:
        recorded = listen(video)
        top.step(
            time,
            recorded["confidence"],
            where="post",
            color="#999999",
            lw=1.2,
            label="nothing fails",
        )
    top.step(
        time, with_sound["confidence"], where="post", color=plots.MODEL, lw=2, label="with sound"
    )
    top.step(
        time,
        without["confidence"],
        where="post",
        color=plots.BASELINE,
        ls="--",
        lw=1.6,
        label="without",
    )
    gate = with_sound["gate"]
    low, high = np.quantile(gate, [0.1, 0.9], axis=1)
    middle.fill_between(time, low, high, color=plots.MODEL, alpha=0.15, lw=0)
    middle.plot(time, gate.mean(axis=1), color=plots.MODEL, lw=2)
    bottom.step(time, with_sound["added"], where="post", color=plots.MODEL, lw=2)
    for ax in (top, middle, bottom):
        plots.shade(ax, store.segments(row), fps=FPS)
        if failing:
            ax.axvline(T // 2 * store.stride / FPS, color=plots.INK, ls=":", lw=1.4)
    top.set(title=role + (", microphone fails" if failing else ""), ylim=(-0.03, 1.03))
    bottom.set(xlabel="time (s)", xlim=(0, T * store.stride / FPS))
    event = store.frame_truth([row]).reshape(-1, store.stride).mean(axis=1)[:T] > 0.5
    for what, here in {"in events": event, "elsewhere": ~event}.items():
        if here.any():
            print(
                f"{role:12} {what:10} confidence {with_sound['confidence'][here].mean():.2f} "
                f"(without sound {without['confidence'][here].mean():.2f})   "
                f"gate {gate[here].mean():.2f}   added {with_sound['added'][here].mean():.2f}"
            )
for ax, label in zip(axes[:, 0], ("confidence", "gate w", "added sound"), strict=True):
    ax.set_ylabel(label)
axes[1, 0].set_ylim(0, 1)
axes[0, 1].legend(*axes[0, 2].get_legend_handles_labels(), frameon=False, fontsize=8, loc="center")
plt.show()

# %% [markdown]
# The top row is what one would hope for. On the left sound alone finds the event; in the middle the
# liars are not believed. On the right the detector goes on by sight when the microphone is gone,
# and look at the grey line: it is even *better* off without. As recorded the alarm never comes down
# after the second event; without sound it does.
#
# The middle row is the surprise. **The mean of the gate hardly moves.** It stays near one half,
# inside events and outside, and it takes no notice of the failing microphone (which it cannot see:
# the mask shuts the sound off behind it). The band is wide: some channels are open and others shut.
#
# And yet the detector does know when to listen: the bottom row shows it. What is added grows
# several times larger in the events that are heard, and stays small with the liars. If it is not
# the gate that does this, it must be the residual $r$, which is a network with both senses at its
# input too. One curve each proves little, so count. The same quantities, over all test snippets by
# what goes on in them. *w moved* is how far a channel's gate is from its own mean over all
# snippets, so that channels which open while others close cannot hide behind a constant mean;
# *push* is how far the added sound moves the anomaly logit.

# %% tags=["nbval-ignore-output"]
watched = [listen(batch_of(row)) for row in test]
names = ("gate", "residual", "added", "push")
columns = {name: np.concatenate([one[name] for one in watched]) for name in names}
gate = columns["gate"]  # (S, D), all test snippets
columns["moved"] = np.abs(gate - gate.mean(axis=0)).mean(axis=1)
columns["gate"] = gate.mean(axis=1)

flags = [store.flags(row) for row in test]
truth_known = all(flags) and store.snippets[test].max() <= settings.model.max_snippets
if truth_known:
    flag = {name: np.concatenate([one[name] for one in flags]) for name in flags[0]}
    anomalous, visible, audible = flag["anomalous"], flag["visible"], flag["audible"]
    lies = np.any([flag[name] for name in flag if name.startswith("distractor")], axis=0)
    broken = flag["corrupted_audio"]
    groups = {
        "event, heard only": anomalous & audible & ~visible,
        "event, heard and seen": anomalous & audible & visible,
        "event, seen only": anomalous & ~audible & visible,
        "event, neither": anomalous & ~audible & ~visible,
        "normal, a distractor": ~anomalous & lies,
        "normal, microphone broken": ~anomalous & ~lies & broken,
        "normal, nothing": ~anomalous & ~lies & ~broken,
    }
    shown = {
        "gate": "gate w",
        "moved": "w moved",
        "residual": "residual r",
        "added": "added w * r",
        "push": "push",
    }
    table = pd.DataFrame(
        {"snippets": {name: int(here.sum()) for name, here in groups.items()}}
        | {
            title: {name: columns[column][here].mean() for name, here in groups.items()}
            for column, title in shown.items()
        }
    )
    print("mean over the test snippets of a kind; lengths in units of the length of x_v\n")
    print(table.to_string(float_format="{:.2f}".format))
    if usual:
        heard_only, quiet = table.loc["event, heard only"], table.loc["normal, nothing"]
        assert abs(heard_only["gate w"] - quiet["gate w"]) < 0.2
        assert heard_only["added w * r"] > 2 * quiet["added w * r"]
        assert heard_only["push"] > 5
else:
    print("this store does not say what can be seen and heard in a snippet")

# %% [markdown]
# The same picture in numbers. Between an event that is only heard and a snippet in which nothing
# happens the mean of the gate differs by a few hundredths, the residual by a factor. Sounds that
# lie and broken microphones get no more than quiet moments do: listening *is* decided for each
# snippet, as it should be. (There is a push in events of which nothing can be heard, too; the
# table does not tell why.) But single
# channels of the gate do move in events, some up and some down, so it might still have its part
# in the decision. There is a test for that. Take the trained detector and replace its gate by
# constants, which look at nothing: each channel at the mean that it had on training videos; one
# number for all channels; open; shut.


# %% tags=["nbval-ignore-output"]
class FixedGate(nn.Module):
    """An adaptive fusion whose gate is a constant (D,) and looks at nothing."""

    def __init__(self, trained_fusion, w):
        super().__init__()
        self.trained_fusion, self.w = trained_fusion, w

    def forward(self, x_v, x_a, mask=None, audio_mask=None):
        added = self.w * self.trained_fusion.residual(x_v, x_a)
        return temporal.zero_padding(x_v + temporal.zero_padding(added, audio_mask), mask)


positive, negative = snippet_truth(store.frame_truth(test), store.snippets[test], store.stride)


def ap_of(scores, kept=slice(None)):
    return 100 * average_precision(scores[kept], positive[kept], negative[kept])


some = store.indices("train")
some = some[:: max(1, len(some) // 100)]  # the constants come from training videos
mean_D = torch.from_numpy(np.concatenate([listen(batch_of(row))["gate"] for row in some]).mean(0))
gates = {
    "as trained": None,
    "constant, each channel its mean": mean_D,
    "constant, one for all channels": torch.full_like(mean_D, mean_D.mean()),
    "open (1)": torch.ones_like(mean_D),
    "shut (0): no sound": torch.zeros_like(mean_D),
}
rows = {}
for name, w in gates.items():
    changed = copy.deepcopy(adaptive)
    if w is not None:
        changed.fusion = FixedGate(adaptive.fusion, w)
    predictions = predict_store(changed, store, test)
    rows[name] = {
        "AP, classification branch": ap_of(predictions.anomaly),
        "AP, alignment branch": ap_of(predictions.alignment_anomaly),
    }
table = pd.DataFrame(rows).T
print(f"the trained detector (seed {seed}) with another gate, %\n")
print(table.to_string(float_format="{:.1f}".format))
if usual:
    ap = table["AP, alignment branch"]
    assert ap["constant, each channel its mean"] > ap["as trained"] - 4
    assert ap["shut (0): no sound"] < ap["as trained"] - 4

# %% [markdown]
# A gate that looks at nothing does about as well as the trained one, in one branch even better.
# Shut, nothing is left of sound, and the detector falls to about the level of vision alone. So in
# *this* detector the gate decides nothing that matters, and the residual does it all.
#
# Take care what follows from that and what does not. It was an operation on one finished detector
# of one seed. One that had been *trained* without a gate might come out otherwise: the gate may
# have helped the residual to become what it is. And on other data it may have more to do; our toy
# shows a case in which it would. What does follow is a habit: the name of a part is no evidence of
# what it does. Plot it, then replace it by a constant.
#
# ## 6. When the microphone fails
#
# A failing microphone comes in two kinds. Either one *knows* (no audio track, the decoder reports
# an error): then `audio_mask` says so, and nothing is added. Or one does not, and the encoder gets
# whatever the microphone delivers:
#
# - *silent*: digital zeros, as from a cable pulled out;
# - *static*: a bad radio link, which training videos have as well (00);
# - *loose plug*: hiss and random clicks. Nothing like it was in training.
#
# From the middle of each test video on, the features of its sound are replaced by those of the
# failure alone, for all four kinds of fusion. The AP is that of the second halves.


# %% tags=["nbval-ignore-output"]
class Failing:
    """A store whose microphones fail in the middle of each video."""

    def __init__(self, store, replacement):
        self.store, self.replacement = store, replacement

    def __getattr__(self, name):
        return getattr(self.store, name)

    def audio(self, row):
        audio = self.store.audio(row)
        if audio is None or self.replacement is None:
            return audio
        audio, half = np.array(audio, np.float32), len(audio) // 2
        audio[half:] = self.replacement[np.arange(len(audio) - half) % len(self.replacement)]
        return audio


def clicks(samples, numbers, rate=8):
    """A loose plug: hiss, and short clicks of either sign at random, ``rate`` of them a second."""
    out = (0.01 * numbers.normal(size=samples)).astype(np.float32)
    for start in np.flatnonzero(numbers.random(samples) < rate / SAMPLE_RATE):
        click = 0.9 * np.exp(-np.arange(min(200, samples - start)) / 40)
        out[start : start + len(click)] += click * numbers.choice([-1, 1])
    return out


broken_sounds = {"nothing fails": None}
if store.encoder == "soundstage":  # other encoders need weights that do not ship
    encoders = load_encoders(store.encoder)
    numbers = np.random.default_rng(seed)
    samples, many = round(store.stride / FPS * SAMPLE_RATE), 64
    waves = {
        "silent": np.zeros(many * samples),
        "static": 0.12 * numbers.normal(size=many * samples),
        "loose plug": clicks(many * samples, numbers),
    }
    for name, wave in waves.items():
        wave = wave.reshape(many, samples).astype(np.float32)
        broken_sounds[name] = encoders.encode_audio(wave).numpy()

second = np.concatenate([np.arange(n) >= n // 2 for n in store.snippets[test]])
calm = second & (positive == 0)
ap_table, false_alarms = {}, {}
for kind, model in models.items():
    scores = {
        name: predict_store(model, Failing(store, sound), test)
        for name, sound in broken_sounds.items()
    }
    for branch, attribute in (("cls", "anomaly"), ("align", "alignment_anomaly")):
        ap_table[TITLES[kind], branch] = {
            name: ap_of(getattr(one, attribute), second) for name, one in scores.items()
        }
    false_alarms[TITLES[kind]] = {name: one.anomaly[calm].mean() for name, one in scores.items()}
print(f"AP in the second half of every test video, %, either branch, seed {seed}\n")
print(pd.DataFrame(ap_table).T.to_string(float_format="{:.1f}".format))
print("\nmean confidence of the normal snippets there\n")
print(pd.DataFrame(false_alarms).T.to_string(float_format="{:.2f}".format))

if store.encoder == "soundstage":
    unit = torch.from_numpy(broken_sounds["loose plug"])
    text = encoders.encode_text(list(store.classes.words))
    nearest = (F.normalize(unit, dim=1) @ F.normalize(text, dim=1).T).argmax(dim=1)
    taken = pd.Series([store.classes.words[i] for i in nearest]).value_counts()
    taken = ", ".join(f"{word} {count}" for word, count in taken.items())
    print(
        f"\nwhat the frozen encoder takes {len(unit)} snippets of clicks for (zero-shot): {taken}"
    )
    if usual:
        alarms = false_alarms["adaptive"]
        assert alarms["static"] < 0.3 < alarms["loose plug"]

# %% [markdown]
# In the columns *silent* and *static* every kind loses what only sound could tell, and none raises
# false alarms: they learned that such sound says nothing. The gate is no advantage in that, since
# the kinds without one do the same.
#
# The last column shows what none of them learned. A click is new, and the frozen encoder has no
# word for *broken plug*; it compares with what it knows, and takes many of the clicks for blows.
# From there on the fusion is innocent: to it, this *is* the sound of an assault. In every kind
# false alarms rise, least in cross attention, which has many of them anyway; the adaptive fusion is
# no exception.
#
# So when should the model listen? It can learn to ignore the sounds that it has met often enough
# without consequence, with a gate or without. Whether a *new* sound is news or a broken plug it
# cannot know. If the device can tell, say so through `audio_mask`; if not, break microphones in
# training in as many ways as you can think of.
#
# ## Exercises

# %% [markdown]
# ### Exercise 1
#
# *5 minutes, easy.* Concatenation can become addition: find the weight matrix $(D, 2D)$ and the
# bias $(D)$ with which the linear layer over $[x_v ; x_a]$ gives exactly $x_v + x_a$. (So whatever
# addition reaches, concatenation *could* have learned.)


# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def addition_as_concatenation(D):
    """weight (D, 2D) and bias (D,) of a linear layer that adds the two halves of its input."""
    # BEGIN SOLUTION
    # Stumbles: a torch layer stores its weight as (outputs, inputs), so the two identity matrices
    # stand side by side and not one above the other.
    return torch.cat([torch.eye(D), torch.eye(D)], dim=1), torch.zeros(D)
    # END SOLUTION


# %% tags=["check"]
module = fusion.ConcatFusion(6)
weight, bias = addition_as_concatenation(6)
assert weight.shape == (6, 12), f"the weight is {tuple(weight.shape)}, it must be (6, 12)"
assert bias.shape == (6,), f"the bias is {tuple(bias.shape)}, it must be (6,)"
module.load_state_dict({"project.weight": weight, "project.bias": bias})
some_v, some_a = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
with torch.no_grad():
    assert_close(module(some_v, some_a), fusion.AddFusion()(some_v, some_a))
print("Exercise 1 is solved.")

# %% [markdown]
# ### Exercise 2
#
# *10 minutes, medium.* A decoder that meets a damaged track may deliver features that are *not a
# number* (NaN). Write the last step of the adaptive fusion, $x_v + w \odot r$, so that snippets
# without sound give back $x_v$ whatever stands in $w$ and $r$ there.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def add_where_heard(x_v, w, r, audio_mask):
    """x_v + w * r (B, T, D) where ``audio_mask`` (B, T) is True, x_v elsewhere."""
    # BEGIN SOLUTION
    # Stumbles: NaN times zero is NaN, so multiplying by the mask does not help; the mask also
    # needs a last axis to be broadcast over the channels.
    return torch.where(audio_mask[..., None], x_v + w * r, x_v)
    # END SOLUTION


# %% tags=["check"]
some_v, some_w, some_r = torch.randn(2, 5, 6), torch.rand(2, 5, 6), torch.randn(2, 5, 6)
mask = torch.ones(2, 5, dtype=torch.bool)
mask[0, 3:] = False
clean = add_where_heard(some_v, some_w, some_r, mask)
assert_close(clean[mask], (some_v + some_w * some_r)[mask], msg="where there is sound")
damaged = torch.where(mask[..., None], some_r, torch.nan)
result = add_where_heard(some_v, some_w, damaged, mask)
assert result.isfinite().all(), "a NaN of a snippet without sound came through"
assert torch.equal(result[~mask], some_v[~mask]), "without sound x_v comes back as it was"
print("Exercise 2 is solved.")

# %% [markdown]
# ## Recap
#
# - put sight and sound together in four ways, and say what each of them cannot do: addition cannot
#   doubt the ear; concatenation subtracts, so that a sound need only be loud enough; the gate
#   multiplies, but is never quite zero; cross attention, as usually built, does not know when a
#   sound was heard.
# - build the gate and the residual of the adaptive fusion, and say what each is for: the residual
#   says what sound would add, the gate how much of it is let in, for every snippet and channel;
#   sight passes untouched, and without sound it is all that remains.
# - compare the four kinds over paired seeds without claiming more than the seeds show: here cross
#   attention is last, as in the paper, but addition and concatenation are ahead of the adaptive
#   fusion.
# - watch how much sound a trained detector lets in, and what it does when the microphone fails: the
#   residual decides when to listen, the mean gate hardly moves and can be replaced by constants;
#   failures known from training are ignored, unknown ones may be taken for events.
#
# Fusion decides what the detector perceives. The next notebook asks what it compares that with:
# [04](04_prompts.ipynb) is about the words.
