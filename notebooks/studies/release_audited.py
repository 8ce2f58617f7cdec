# %% [markdown]
# # Lab note · The release, audited
#
# **Question:** Where does the authors' code compute something other than what its paper says, how
# large is each difference, and which switch takes it back?
#
# **Prerequisites:** [09](../09_xd_violence.ipynb), which shows that form `released` is their code
#
# **Minutes:** 12 to read; 1 on two CPU cores
#
# **Reads:** the feature store (Soundstage unless you say otherwise), the teacher and the student
# that ship with it
#
# **Writes:** on other data trained detectors to the cache

# %% tags=["parameters"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
scale: str = "soundstage"  # how large, where no detector ships: soundstage or xd
seed: int = 0  # of toys, and of trainings where no detector ships
device: str = "auto"  # where to compute: auto, cpu, cuda

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from avadclip_lite import losses
from avadclip_lite.config import find_device, make_config
from avadclip_lite.dataset import TrainingSet, resample
from avadclip_lite.encoders import load_text
from avadclip_lite.evaluate import average_precision, evaluate, event_metrics, snippet_truth
from avadclip_lite.experiments.cache import train_or_load
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.experiments.score_files import trapezoid_area
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
# ## 1. A softmax along the wrong axis
#
# The audio-visual prompt shares a video's global vector $x_p$ out among the classes, by a softmax
# of their similarities (equation 5). The code first copies $x_p$ once for each class, computes a
# square table of similarities, classes by copies, and takes the softmax over the *copies*. Three
# classes in the plane, of which the first is what the video shows:

# %%
x_c = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])  # (C, D)
x_p = torch.tensor([0.8, 0.6])
table = x_c @ x_p.expand(3, 2).T  # (C, copies): equal columns
print("over classes, as written:", (x_c @ x_p).softmax(dim=0).numpy().round(2))
print("over copies, as coded:\n", table.softmax(dim=1).numpy().round(2))
imprint = table.softmax(dim=1) @ x_p.expand(3, 2)
print("imprint of each class, as coded:\n", imprint.numpy().round(2))

# %% [markdown]
# Equal columns give equal weights, whatever the video shows; the copies add up to the whole vector,
# the same for every class. **Switch:** `av_prompt="softmax"`.
#
# ## 2. Padding that takes part
#
# A batch is as long as its longest video, or, in the code, always as long as the position table.
# Rows beyond a video's end are zeros. The similarity graph leaves them out. Attention, the distance
# graph and the convolutions do not, and they are no zeros any more once positions were added. So
# what an encoder says of a video depends on how much nothing follows. Forty test videos, each alone
# and filled up to the table's length, by the shipped weights; how far do features move?

# %% tags=["nbval-ignore-output"]
text = load_text(store.encoder, store.classes.words, dim=store.dim)


def fresh(model, **switch):
    """An untrained detector of the same configuration, with a switch turned."""
    torch.manual_seed(seed)
    return build(model.settings.override(**switch), *text, classes=store.classes).to(where).eval()


def turned(model, **switch):
    """The same weights, with a switch of the configuration turned."""
    other = fresh(model, **switch)
    other.load_trainable_state(model.trainable_state())
    return other


@torch.no_grad()
def moved(model, row, last=20):
    """(last,) relative change of a video's last features by padding, the very last one first."""
    x = torch.tensor(store.video(row), dtype=torch.float32, device=where)
    padded = F.pad(x, (0, 0, 0, model.max_snippets - len(x)))
    short, long = (
        model.encoder(one[None], torch.arange(len(one), device=where)[None] < len(x))[0, : len(x)]
        for one in (x, padded)
    )
    return ((long - short).norm(dim=1) / short.norm(dim=1)).flip(0)[:last].cpu().numpy()


test, most = store.indices("test"), teacher.max_snippets
some = [row for row in test if most / 4 <= store.snippets[row] <= most * 3 / 4][:40]
leaking = turned(teacher, padding="leaking", length_aware=False)
fig, ax = plt.subplots(figsize=(plots.WIDTH * 0.65, 2.8))
looks = {"leaking": (leaking, plots.TRUTH, "o-"), "masked": (teacher, plots.MODEL, "s--")}
for name, (model, colour, look) in looks.items():
    change = 100 * np.mean([moved(model, row) for row in some], axis=0)
    ax.plot(range(len(change)), change, look, color=colour, label=name)
    print(f"{name:8} last snippet {change[0]:.1f} %, ten from the end {change[10]:.1f} %")
ax.set(xlabel="snippets from the end", ylabel="features change by, %", xticks=range(0, 20, 2))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# **Switch:** `padding="masked"`. It also allows batches cut to their longest video.
#
# ## 3. A sigma with a ceiling
#
# The student's head predicts $\theta = \ln \sigma^2$ of its errors. In the code $\theta = -(y +
# \mathrm{ReLU}(\cdot))$ with the encoder's own output $y$, so $\theta \le -y$: where a feature is
# large, the student may not be unsure. First what the ceiling costs at an error of 1; then, on test
# videos, how often the best $\theta$ for the error really made would lie above it. (The shipped
# student's head is free; only its $y$ is looked at.)

# %% tags=["nbval-ignore-output"]
one = torch.ones(1, 1, 1)
for y in (-2.0, 0.0, 2.0, 4.0):
    free = np.log(0.5)  # the best theta of the released loss, whose first term is halved
    theta = min(free, -y) * one
    loss = losses.ukd(0 * one, one, theta, kind="released")
    print(f"y = {y:+.0f}: sigma^2 at most {np.exp(-y):6.2f}, least loss {loss:6.2f}")
bags = TrainingSet(store, test, student.settings)
bound = []
with torch.no_grad():
    for index in torch.arange(len(bags)).split(64):
        batch = bags.batch(index).to(where)
        output, goal = student(batch), teacher(batch).features
        y = student.encoder(batch.video, output.mask)
        best = ((goal - output.features).square() / 2).clamp_min(1e-12).log()
        bound.append((best > -y)[output.mask].float().mean(dim=1))
print(f"a ceiling would bind at {torch.cat(bound).mean():.1%} of all numbers")
for head, kind in (("free", "paper"), ("bounded", "released")):
    with torch.no_grad():
        new = fresh(student, variance_head=head)(batch)
        loss = losses.ukd(new.features, goal, new.log_variance, new.mask, kind)
    print(f"untrained student, {head} head: loss {loss:.1f} on the last batch", end="; ")
    print(f"ln sigma^2 between {new.log_variance.min():.1f} and {new.log_variance.max():.1f}")

# %% [markdown]
# In the trained student the ceiling would hardly bind: its errors are small, so the best $\theta$
# is low. At the *start* it rules. The untrained encoder's $y$ is large and sorted by nothing,
# errors are divided by next to nothing, and the loss begins in the millions. The code's weight of
# $10^{-8}$ for this loss is what holds that down: two oddities that need each other. **Switch:**
# `variance_head="free"`, and `ukd="paper"` for the factor of a half on both terms.
#
# ## 4. Two senses, pooled apart
#
# A training video longer than the table is averaged into as many bins. The code does so for
# pictures and sound apart. Where one track is a snippet longer, as happens, bin 200 holds other
# moments of one than of the other:

# %%
for n in (257, 300, 1_000):
    starts = [resample(np.arange(m, dtype=np.float32)[:, None], 256)[:, 0] for m in (n, n + 1)]
    apart = np.abs(starts[0] - starts[1])
    print(f"{n} and {n + 1} snippets: up to {apart.max():.1f} apart, {(apart >= 0.5).mean():.0%}")

# %% [markdown]
# (The share is that of bins half a snippet apart or more.) **Switch:** `resample="together"`, which
# cuts both to the length that they share first.
#
# ## 5. Two measures
#
# **mAP.** The code averages over seven classes, normal included, and answers 0 for all of them if a
# single class proposes nothing. Make the shipped teacher mute in *one* class: its row of the map
# becomes flat. **AP.** Some releases of the field print an area by trapezoids. Where scores are
# equal, trapezoids promise what no threshold reaches; so the teacher's confidences are rounded.

# %% tags=["nbval-ignore-output"]
report = evaluate(teacher, store)
found, names = report.predictions, [store.videos[row].name for row in test]
segments = [store.segments(row) for row in test]
probs = found.alignment.copy()
for silent in (None, 4):
    if silent is not None:
        probs[:, silent] = probs[:, silent].mean()
    given = names, probs, found.lengths, segments, store.classes, store.stride
    metrics, *_ = event_metrics(*given)
    six, seven = (100 * metrics[f"map_{name}"] for name in ("anomaly", "with_normal"))
    what = "as it is" if silent is None else f"mute in {store.classes.words[silent]!r}"
    print(f"{what:16} mean mAP of six classes {six:.1f}, of seven as released {seven:.1f}")
counts = snippet_truth(store.frame_truth(test), found.lengths, store.stride)
confidence = found.anomaly.astype(np.float64)
for name, scores in {
    "as they are": confidence,
    "one decimal": confidence.round(1),
    "no decimal": confidence.round(0),
    "all equal": np.zeros_like(confidence),
}.items():
    ap, area = (100 * f(scores, *counts) for f in (average_precision, trapezoid_area))
    print(f"confidences {name:12} AP {ap:5.1f}, trapezoids {area:5.1f}")

# %% [markdown]
# **Instead:** `map_anomaly` beside `map_with_normal`; `evaluate --trapezoid` prints both areas.
#
# ## 6. A switch away
#
# The two forms differ in so many fields, and each can be turned alone. Five of them change what
# given weights compute. Turned in the shipped teacher, without training it again, from the paper's
# to the released side: by how many points do the probabilities of a snippet's classes move, and
# what becomes of the AP?

# %% tags=["main-figure", "nbval-ignore-output"]
# Five switches, each turned to the released side in the trained teacher: mean change of a snippet's
# class probabilities, and AP of the alignment branch.
ours, theirs = (make_config(form=form).to_dict() for form in ("paper", "released"))
parts = ("model", "loss", "train", "data")
differs = {k: v for part in parts for k, v in theirs[part].items() if v != ours[part][k]}
print(f"{len(differs)} fields:", ", ".join(f"{k}={v}" for k, v in differs.items()))
turnable = ("padding", "av_prompt", "global_weight", "prompt_skip", "missing_audio")
base, change = 100 * report.metrics["frame_ap_alignment"], {}
for name in turnable:
    switch = {name: differs[name]} | ({"length_aware": False} if name == "padding" else {})
    other = evaluate(turned(teacher, **switch), store)
    apart = np.abs(other.predictions.alignment - found.alignment).sum(axis=1).mean() / 2
    change[f"{name} = {differs[name]}"] = 100 * apart
    ap = 100 * other.metrics["frame_ap_alignment"]
    print(f"{name:14} moves by {100 * apart:6.3f} points, AP {ap:.1f} (before: {base:.1f})")
fig, ax = plt.subplots(figsize=(plots.WIDTH * 0.65, 2.4))
ax.plot(change.values(), range(len(change)), "o", color=plots.MODEL, ms=8)
ax.grid(axis="y", color="#DDDDDD")
ax.set_yticks(range(len(change)), change, fontsize="small")
ax.set(
    xscale="log",
    ylim=(len(change) - 0.5, -0.5),
    xlabel="class probabilities move by, points (mean over snippets)",
)
plt.show()

# %% [markdown]
# Padding moves most; none of the five moves AP by more than a few tenths of a point. That says
# little of what each does in *training*, where weights would have grown around it; the other fields
# act there alone. For the form as a whole the study has a row, and 09 reads it.

# %% [markdown]
# ## Answer
#
# In six places at least. A softmax along the wrong axis gives every class the same vector. Padding
# changes the features of a video's last snippet by more than their length. A ceiling on $\sigma$
# starts the distillation in the millions, and a weight of $10^{-8}$ holds it down. Pictures and
# sound of long videos are pooled up to a snippet apart. One silent class turns an mAP into zero; in
# other releases an area by trapezoids rewards ties. In this trained teacher the switches change the
# AP little. So they are no scandal, and worth knowing for another reason: who compares with a table
# should know which function made it, and with these fields either can be run. Numbers are
# Soundstage's and two detectors'.
