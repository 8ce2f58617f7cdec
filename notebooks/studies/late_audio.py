# %% [markdown]
# # Lab note · The late ear
#
# **Question:** A causal audio branch hears only the past: does that make the detector late, and
# where would it cost?
#
# **Prerequisites:** [06](../06_teacher.ipynb), which suspects the ear and gives it an alibi
#
# **Minutes:** 12 to read; 3 on two CPU cores
#
# **Reads:** the feature store (Soundstage unless you say otherwise), the teacher and the student
# that ship with it, the results of the study
#
# **Writes:** one trained detector to the cache

# %% tags=["parameters"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
scale: str = "soundstage"  # how large: soundstage or xd
seed: int = 0  # of the trainings where no detector ships, and of the drawings
device: str = "auto"  # where to train: auto, cpu, cuda

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
import torch

from avadclip_lite.config import find_device, make_config
from avadclip_lite.encoders import load_text
from avadclip_lite.evaluate import average_precision, predict_videos, snippet_truth
from avadclip_lite.experiments import study
from avadclip_lite.experiments.cache import train_or_load
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.model import build
from avadclip_lite.viz import plots
from avadclip_lite.viz.lesson import open_stage, shipped

plots.use_style()
check_parameters(globals())  # plain papermill hands lists over as text
store, where = open_stage(data), find_device(device)
teacher, student = shipped(store, "teacher"), shipped(store, "student")
if teacher is None:  # other data: train one
    settings = make_config(scale=scale, dim=store.dim, seed=seed, device=device)
    teacher = train_or_load(settings, store, progress=False).model
settings = teacher.settings.override(device=device)
teacher = teacher.to(where)

# %% [markdown]
# ## 1. What it can hear, and what it listens to
#
# Each block of the audio branch has two convolutions over the present snippet and an earlier one,
# 1, 2 and 4 snippets back: together it *reaches* 14 snippets back and none ahead. Reach is
# architecture. What a branch *listens to* is a matter of training. The gradient tells both: by how
# much does one output snippet move when an input snippet does? Beside the trained branch a fresh
# one, with weights as they were before training.


# %%
def listening(branch, snippet=20, T=24):
    """(T,) shares of the gradient of the output at ``snippet``, by input snippet."""
    x = torch.randn(64, T, store.dim, generator=torch.Generator().manual_seed(seed))
    x, mask = x.to(where).requires_grad_(), torch.ones(64, T, dtype=torch.bool, device=where)
    (gradient,) = torch.autograd.grad(branch(x, mask)[:, snippet].sum(), x)
    share = gradient.abs().sum(dim=(0, 2))
    return (share / share.sum()).cpu().numpy()


torch.manual_seed(seed)
text = load_text(store.encoder, store.classes.words, dim=store.dim)
fresh = build(settings, *text, classes=store.classes).to(where).eval()
fig, ax = plt.subplots(figsize=(plots.WIDTH * 0.7, 2.8))
lags = np.arange(24) - 20
branches = {"before training": (fresh, plots.BASELINE), "trained": (teacher, plots.MODEL)}
for k, (name, (model, colour)) in enumerate(branches.items()):
    share = listening(model.audio_encoder)
    ax.bar(lags + 0.4 * k - 0.2, share, width=0.4, color=colour, label=name)
    reach = lags[share > 0]
    print(f"{name:16} reaches from {reach.min():+d} to {reach.max():+d};", end=" ")
    print(f"present {share[20]:.0%}, mean distance {-(share * lags).sum():.2f} snippets")
ax.set(xlabel="input, in snippets from the output", ylabel="share of the gradient")
ax.set(xlim=(-15, 4), xticks=range(-14, 4, 2))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# Both reach equally far, and neither sees a snippet ahead. Training moved weight to the present:
# the mean distance, a crude forecast of the ear's own lateness, shrinks. And the fusion adds sound
# to pictures that look both ways, so the whole may be late by less.
#
# ## 2. Is the detector late?
#
# 06's test: move all scores earlier by $k$ snippets inside their videos. If the detector is late,
# AP has its top at $k > 0$; a parabola through the best $k$ and its neighbours reads the top to a
# fraction of a snippet.

# %%
test = store.indices("test")
lengths = store.snippets[test]
positive, negative = snippet_truth(store.frame_truth(test), lengths, store.stride)
offsets = np.concatenate([[0], np.cumsum(lengths)])
video_of = np.repeat(np.arange(len(test)), lengths)


def confidences(model, delay=0):
    """(S,) of all test videos, their sound ``delay`` snippets late; None: without sound."""
    videos = []
    for row in test:
        sound, mask = store.audio(row), store.audio_mask(row)[: len(store.video(row))]
        if sound is None or delay is None:
            sound = mask = None
        elif delay:  # what would come before the first snippet repeats it
            back = np.maximum(np.arange(len(sound)) - delay, 0)
            sound, mask = sound[back], mask[: len(sound)][back]
        videos.append((store.video(row), sound, mask))
    return predict_videos(model, videos).anomaly


def moved(scores, k):
    """Scores moved earlier by k snippets within their videos; a video's last score is repeated."""
    place = np.arange(len(scores)) + k
    return scores[np.clip(place, offsets[video_of], offsets[video_of + 1] - 1)]


def lateness(scores, own=positive, weight=None, moves=range(-1, 3)):
    """Top of the AP of the frames ``own`` over moves, in snippets; ``weight`` (V,): how often each
    video was drawn."""
    times = 1 if weight is None else weight[video_of]
    ap = [average_precision(moved(scores, k), own * times, negative * times) for k in moves]
    k = int(np.clip(np.argmax(ap), 1, len(ap) - 2))
    left, best, right = ap[k - 1 : k + 2]
    return moves[k] + (left - right) / (2 * (left - 2 * best + right))


# %% [markdown]
# Three detectors: the teacher; the same weights with the microphone cut (**deaf**); the student,
# which only sees. New here is how sure the number is: videos are drawn again, with replacement,
# twenty times. The last line is the ear's own part, teacher minus deaf, on the same draws.

# %% tags=["nbval-ignore-output"]
scores = {"teacher": confidences(teacher), "teacher, deaf": confidences(teacher, None)}
if student is not None:
    scores["student"] = confidences(student.to(where))
rng = np.random.default_rng(seed)
drawn = rng.multinomial(len(test), np.full(len(test), 1 / len(test)), size=20)
again = {name: np.array([lateness(one, weight=w) for w in drawn]) for name, one in scores.items()}
again["teacher minus deaf"] = again["teacher"] - again["teacher, deaf"]
for name, values in again.items():
    print(f"{name:20} late by {values.mean():+.2f} snippets, give or take {2 * values.std():.2f}")

# %% [markdown]
# The teacher *is* late, by about a third of a snippet. But so is its deaf twin: what the ear adds
# when it is listened to is not to be told from zero. (The student, another training with another
# encoder, is on time.)
#
# ## 3. A planted delay
#
# A test that finds nothing must be shown that it could have found something. So plant a lateness:
# delay the *sound* of every test video by so many snippets, leave the pictures alone, and ask the
# same teacher. If its timing comes from the ear, lateness grows with the delay, one for one; if it
# comes from the eye, not at all. On the left the lateness that is found, by what can be noticed of
# an event; on the right the AP. Guess first: which kind follows the diagonal?

# %% tags=["main-figure", "nbval-ignore-output"]
# The sound of every test video is delayed, the pictures are not. Left: by how much the teacher is
# late (dotted: by as much as the sound). Right: what that costs.
kinds = {"all events": positive}
if {"visible", "audible"} <= set(store.flag_names):
    flags = [store.flags(row) for row in test]
    seen, heard = (np.concatenate([f[name] for f in flags]) for name in ("visible", "audible"))
    kinds["seen and heard"] = np.where(seen & heard, positive, 0)
    kinds["only heard"] = np.where(heard & ~seen, positive, 0)
delays = (0, 1, 2, 3, 4)
delayed = {delay: confidences(teacher, delay) for delay in delays}
fig, axes = plt.subplots(1, 2, figsize=(plots.WIDTH, 3.2))
looks = zip(kinds, (plots.INK, plots.BASELINE, plots.MODEL), "so^", strict=False)
for kind, colour, marker in looks:
    own = kinds[kind]
    late = [lateness(one, own, moves=range(-2, 7)) for one in delayed.values()]
    ap = [100 * average_precision(one, own, negative) for one in delayed.values()]
    for ax, values in zip(axes, (late, ap), strict=True):
        ax.plot(delays, values, marker=marker, color=colour, lw=2, label=kind)
    print(f"{kind:15} late by", " ".join(f"{x:+.1f}" for x in late), end="; ")
    print("AP", " ".join(f"{x:.1f}" for x in ap))
axes[0].plot(delays, delays, ":", color="#999999")
for ax, label in zip(axes, ("found late by (snippets)", "AP, %"), strict=True):
    ax.set(xlabel="sound delayed by (snippets)", ylabel=label, xticks=delays, ylim=(0, None))
axes[1].legend(frameon=False, fontsize="small")
plt.show()

# %% [markdown]
# The test can find a late ear. On events that are *only heard* the timing follows the sound snippet
# by snippet, from where it stood. Where there is something to see, pictures and sound come to
# disagree, and pictures win. So an ear that were late by a whole snippet would have been noticed,
# and it would have cost: the first step of each line on the right says how much.
#
# ## 4. Where lateness costs
#
# A snippet late costs a long event its first snippet, and adds one after its end. A short one it
# costs everything. Here the teacher's own scores are made late by one and by two snippets, and AP
# is taken for events of a third of the lengths at a time, the others left out.

# %% tags=["nbval-ignore-output"]
events = [
    (offsets[v] + start // store.stride, offsets[v] - (-end // store.stride))
    for v, row in enumerate(test)
    for _, start, end in store.segments(row)
]
lasts = np.array([end - start for start, end in events])
edges = [0, *np.quantile(lasts, [1 / 3, 2 / 3]), lasts.max()]
for low, high in zip(edges, edges[1:], strict=False):
    own = np.zeros(len(positive), bool)
    for (start, end), last in zip(events, lasts, strict=True):
        own[start:end] |= low < last <= high
    ap = [moved(scores["teacher"], -k) for k in (0, 1, 2)]
    ap = [100 * average_precision(one, np.where(own, positive, 0), negative) for one in ap]
    print(f"events of {low + 1:.0f} to {high:3.0f} snippets: {own.sum():4} snippets,", end=" ")
    print("AP on time, one and two late:", " ".join(f"{x:5.1f}" for x in ap))

# %% [markdown]
# One snippet of lateness takes a large part of the AP of short events, and a little of that of long
# ones. Most anomalous snippets lie in long events, so AP over all frames hardly shows it: a number
# that pools all frames is the wrong place to look for lateness, and a data set of events of about
# ten snippets is where a causal ear did harm (this course's first stage was one).
#
# ## 5. The intervention
#
# `audio_context="both"` lets every second convolution look ahead: equal weights, equal reach. One
# training, with the teacher's settings and seed, and *its* deaf twin, since its eye is new, too.

# %% tags=["nbval-ignore-output"]
ahead = train_or_load(settings.override(audio_context="both"), store, progress=False).model
ahead = ahead.to(where)
share = listening(ahead.audio_encoder)
print(
    f"both ways: past {share[:20].sum():.0%}, present {share[20]:.0%}, ahead {share[21:].sum():.0%}"
)
scores["both ways"], scores["both ways, deaf"] = confidences(ahead), confidences(ahead, None)
for name in ("teacher", "teacher, deaf", "both ways", "both ways, deaf"):
    ap = 100 * average_precision(scores[name], positive, negative)
    print(f"{name:16} AP {ap:.1f}, late by {lateness(scores[name]):+.2f}")
frame, pair = study.results("main"), ("adaptive, bidirectional TCN", "adaptive")
both = frame[frame["row"].isin(pair)].groupby("seed")["row"].nunique().eq(2).sum()
if both < 2:
    print(f"the study's file has {both} seeds of both: nothing to say over seeds yet")
else:
    print(study.paired(frame, *pair, "frame_ap_classification"))

# %% [markdown]
# With an ear that looks both ways the detector is on time, and so is its deaf twin. Put beside
# section 2 that is a suspicion of another kind: the *eye* of the causal teacher is late without any
# sound, that of this one is not, as if an eye that was trained beside a late ear had learned to
# wait for it. The alibi holds for the moment of listening; for the time of training it is open. Two
# trainings can only ask that question. What such an ear is worth in AP the last line says, once the
# study's file has the row.

# %% [markdown]
# ## Answer
#
# The causal branch reaches fourteen snippets back, and training moves its weight to the present.
# The teacher is late by about a third of a snippet, and stays so when it is deaf: taking
# the sound away does not mend it, training with another ear did, once. A delay that is planted is
# found, so the test is no blind one. It costs where an event is only heard, and where it is short;
# pooled over all frames it hardly shows. Soundstage is synthetic, and one teacher is one teacher:
# on your own data plant a delay first, and then measure.
