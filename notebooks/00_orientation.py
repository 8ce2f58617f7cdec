# %% [markdown] tags=["core"]
# # 00 · Orientation
#
# **Question:** What is weakly supervised anomaly detection, what does the data look and sound
# like, and what will you build?
#
# **You will be able to:**
#
# - say what training is given, what is asked for afterwards, and why the label is called weak
# - turn seconds into frames and snippets, and a video's truth into its weak label
# - name the classes, what pretends to be one of them, and which sense can tell
# - say what a random detector scores, and why AUC flatters
# - point at each part of the detector and say what it is for
#
# **Prerequisites:** Python and a little NumPy; PyTorch comes in with notebook
# [01](01_encoders.ipynb). Words: [glossary](../docs/glossary.md)
#
# **Minutes:** 22 to read, 11 hands-on; 1 on two CPU cores
#
# **Reads:** the **feature store**, a folder with each video's **features**: numbers that networks,
# the **encoders** ([01](01_encoders.ipynb)), make of pictures and sounds (Soundstage unless you say
# otherwise)
#
# **Writes:** numbers to `metrics.json`

# %% tags=["parameters", "core"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
seed: int = 0  # of the random detectors

# %% tags=["setup", "core"]
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, Audio, display
from matplotlib_inline.backend_inline import set_matplotlib_formats

from avadclip_lite.config import SAMPLE_RATE
from avadclip_lite.evaluate import average_precision, roc_auc, snippet_truth
from avadclip_lite.experiments import study
from avadclip_lite.experiments.metrics import record
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.video.reader import read_clip
from avadclip_lite.viz import plots
from avadclip_lite.viz.diagram import architecture
from avadclip_lite.viz.lesson import FPS, clip_path, examples, open_stage, scoreboard

plots.use_style()
check_parameters(globals())  # plain papermill hands lists over as text
store = open_stage(data)
words = dict(zip(store.classes.codes, store.classes.words, strict=True))
running = examples(store)  # the rows of the three videos that go through all notebooks
test = store.indices("test")
share = store.frame_truth(test).mean()  # the positive share, which section 4 explains
dataset = "Soundstage" if store.encoder == "soundstage" else store.classes.name

# %% [markdown] tags=["core"]
# ## 1. The task
#
# Cameras record far more than anyone can watch. Somewhere in those hours there is a fight, a crash,
# an explosion; the rest is people walking by. An **anomaly detector** watches in our place. For
# every moment it answers two questions:
#
# - **How anomalous is this?** One number between 0 and 1, the **confidence**. This coarse answer is
#   enough to wake a guard.
# - **What is it?** One class out of a fixed list, *normal* among them. This fine one is enough to
#   call the right help.
#
# Learning this the usual way takes videos in which someone has marked where every event begins and
# ends. That is slow and distressing work. Saying "there is a shooting somewhere in this half hour"
# takes a moment. So that is all we are given: for each training video, the *set of classes* that
# occur somewhere in it. Such a label is **weak**: it is true of the video and silent about every
# single moment of it. The videos are **untrimmed**: nobody cut away the uneventful minutes around
# the event.
#
# The task is called **weakly supervised video anomaly detection**. The method that these notebooks
# rebuild is [AVadCLIP](https://arxiv.org/abs/2504.04495), whose idea is in its first two letters:
# **a**udio and **v**ideo. Shots are heard round a corner, screams in the dark. But ears can be
# fooled as well as eyes, so the detector has to learn *when* to listen.
#
# ## 2. A video is a bag of snippets
#
# A video runs at 24 frames a second. No detector needs all of them, so the video is cut into
# **snippets** of 16 frames, the **stride**. A snippet becomes one feature vector for its picture
# and one for its sound, and the detector gives one answer for each. A video with $T$ snippets has
# $N = 16\,T$ frames.
#
# The sums once by hand, for a toy video of thirty snippets in which somebody is beaten from frame
# 200 to frame 330. The end of an event is **exclusive**, the first frame that no longer belongs to
# it, so that the length is the difference. (So it is in XD-Violence, the paper's data set.)

# %% tags=["core"]
stride, fps = 16, 24
T = 30
N = stride * T
start, end = 200, 330
print(f"a snippet:       {stride} / {fps} = {stride / fps:.3f} s")
print(f"the video:       {stride} x {T} = {N} frames, {N} / {fps} = {N / fps:.0f} s")
print(f"the event:       {start / fps:.1f} s to {end / fps:.1f} s, {end - start} frames")
print(f"its first snippet: {start} // {stride} = {start // stride}, ", end="")
print(f"its last: ({end} - 1) // {stride} = {(end - 1) // stride}")
print(f"positive share:  {end - start} / {N} = {(end - start) / N:.1%} of the frames")

# %% [markdown] tags=["core"]
# Frame 200 does not begin a snippet: snippet 12 starts at frame 192. So its first eight frames are
# normal and the next eight are not. The truth has the resolution of frames, a detector's answer
# that of snippets, and at the edges of every event the two disagree.

# %% [markdown] tags=["core"]
# ### Exercise 1
#
# *6 minutes, easy.* The truth of a video is a list of events `(code, start, end)`: the code of a
# class, then frames, the end exclusive. Which snippets hold at least one anomalous frame? Return
# their numbers, sorted, each once. Beware of an event that ends where a snippet ends.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution", "core"]
def snippets_of(events, stride=16):
    """Numbers of the snippets that events (code, start, end) touch, a sorted list."""
    # BEGIN SOLUTION
    # Stumbles: an event that ends at frame 48 does not touch snippet 3, because the end is
    # exclusive, and two events may touch the same snippet.
    found = set()
    for _, start, end in events:
        found |= set(range(start // stride, (end - 1) // stride + 1))
    return sorted(found)
    # END SOLUTION


# %% tags=["check", "core"]
assert snippets_of([("B5", 40, 50)]) == [2, 3], "frames 40 to 49 lie in snippets 2 and 3"
assert snippets_of([("B5", 32, 48)]) == [2], "exclusive: frame 48 is no longer anomalous"
assert snippets_of([("B2", 0, 20), ("G", 16, 40)]) == [0, 1, 2], "each snippet once"
for i in test:
    events = store.segments(i)
    touched = {frame // store.stride for _, a, b in events for frame in range(a, b)}
    assert snippets_of(events, store.stride) == sorted(touched), events
print("Exercise 1 is solved.")

# %% [markdown] tags=["core"]
# Here is the truth as an array, held against the package's for *every* test video; and, the other
# way, the set of classes, which is all that training is told. It is written at the end of the
# video's name (`label_B2-G-0`: shooting and explosion, with a zero for padding) and becomes a row
# of zeros and ones, one column a class. Column 0 stands for *normal*, and is 1 only if nothing else
# is.


# %% tags=["core"]
def my_truth(segments, frames):
    """(N,) 0 or 1 per frame."""
    truth = np.zeros(frames, np.uint8)
    for _, start, end in segments:
        truth[start:end] = 1
    return truth


def my_weak_label(codes):
    """(C,) 0 or 1 per class, from codes such as B2-G."""
    return np.array([float(code in codes.split("-")) for code in words], np.float32)


truth = np.concatenate([my_truth(store.segments(i), store.frames[i]) for i in test])
assert np.mean(truth == store.frame_truth(test)) > 0.999  # XD-Violence's two forms differ a little
weak = np.stack([my_weak_label(store.videos[i].label) for i in test])
assert np.array_equal(weak, store.labels(test))

print(f"{'what training is told':58}{' '.join(f'{code:>2}' for code in words)}")
for row in running.values():
    label = store.labels([row])[0].astype(int)
    print(f"{store.videos[row].name:58}{' '.join(f'{hot:2}' for hot in label)}")

# %% [markdown] tags=["core"]
# ## 3. The stage
#
# The paper works mainly on **XD-Violence**: some two hundred hours of films, sports, street cameras
# and home videos. We cannot ship any of that, nor its features, nor the published weights.
#
# What ships instead is **Soundstage**: a small world that is *drawn and synthesised by a program*.
# **Nothing on it is footage.** No camera filmed it, no microphone recorded it, nobody in it is
# real. It has the classes of XD-Violence, labels and annotations of the same form, and the same
# troubles: events that are only heard or only seen, sounds and pictures that lie.
#
# In a world that somebody made up, difficulty is somebody's choice: how rare anomalies are, how
# much is lost without sound, how much room is left below a perfect score. How it was set, what was
# looked at while setting it, and what was not, stands in `data/README.md`. A score on Soundstage
# says whether a *mechanism* works; it says nothing about real streets. Hence a rule for the whole
# course: beside a number of the paper **signs may be compared** (which of two detectors is ahead),
# **levels not**.
#
# These are the classes, with their codes in the names of videos. Below each anomaly stands a
# **distractor**, something harmless made to look or sound like one. A video may be full of
# distractors and still be normal.

# %% tags=["core"]
PAIRS = {
    "shooting": "fireworks",
    "explosion": "thunder",
    "riot": "cheering",
    "fighting": "dancing",
    "car accident": "horn",
    "abuse": "door slam",
}
MOMENT = 66  # frames: in the middle of a clip of six seconds
print(", ".join(f"{code} {word}" for code, word in words.items()))


def clip(name):
    """Frames (N, H, W, 3) and sound (samples,) of a clip that ships."""
    frames, _, wave = read_clip(clip_path(name.replace(" ", "_")))
    return frames, wave


names = {name: clip(name) for name in PAIRS}
names |= {name: clip(f"distractor {name}") for name in PAIRS.values()}
set_matplotlib_formats("jpeg", pil_kwargs={"quality": 85})  # grain is ten times smaller as JPEG
shown = [*PAIRS, *PAIRS.values()]
above = [name in PAIRS for name in shown]
title = "above: anomalies; below: what each was paired with"
plots.contact_sheet(
    [names[n][0][MOMENT] for n in shown], shown, marked=above, columns=6, title=title
)
plt.show()

# %% [markdown] tags=["core"]
# A detector gets such pictures 64 pixels wide. Some pairs are alike to the eye, some only to the
# ear; which of them fool whom has to be measured, and 01 does so.

# %% [markdown]
# Guess first: listen to three of the pairs and say what tells left from right. (Where a page leaves
# out the players, JupyterLab and `make run`'s report have them.)

# %% tags=["nbval-ignore-output"]
heard = {name: wave[SAMPLE_RATE : 4 * SAMPLE_RATE].clip(-1, 1) for name, (_, wave) in names.items()}
rows = ""
for pair in list(PAIRS.items())[:3]:
    for name in pair:
        player = Audio(heard[name], rate=SAMPLE_RATE, normalize=False)._repr_html_()
        rows += f"{'<tr>' if name in PAIRS else ''}<td><b>{name}</b><br>{player}</td>"
display(HTML(f"<table>{rows}</table>"))
for side, some in {"anomalies": PAIRS, "harmless": PAIRS.values()}.items():
    decibels = [10 * np.log10(np.mean(heard[name] ** 2)) for name in some]
    print(f"loudness of the {side:9}: {min(decibels):.0f} to {max(decibels):.0f} dB")

# %% [markdown]
# As far as the two ranges of loudness overlap, a detector has to hear *what* is loud.

# %% [markdown] tags=["core"]
# ## 4. Three videos to follow
#
# Three test videos return in seven more lessons. Each is an argument:
#
# - **sound saves:** the picture leaves a crash that can still be heard. A detector without ears has
#   to guess.
# - **sound lies:** a normal video full of distractors. A detector that is startled by every bang
#   must fail.
# - **many labels:** several classes in one video. Saying *that* something happens is not enough.

# %% [markdown]
# The first two are shown as pictures above and a **spectrogram** below, which is sound as a
# picture: time from left to right, pitch from bottom to top, brightness for energy. A bang, which
# has every pitch at once, is a bright vertical line; a voice is a stack of wavy lines; a crowd is a
# cloud; an even block is a place that gets loud, and may drown an event. Pictures from inside an
# event have a frame around them, and the event is outlined in the spectrogram. Try to find it by
# eye before you look for the outline.

# %%
for role in ("sound saves", "sound lies"):
    row = running[role]
    path = clip_path(store.videos[row].name)
    print(f"{role}: {store.videos[row].name}")
    if path is None:  # other data has features only
        continue
    frames, _, wave = read_clip(path)
    segments, seconds = store.segments(row), len(frames) / FPS
    times = np.linspace(0.03, 0.95, 8) * seconds
    for _, start, end in segments:  # let the pictures meet what happens
        middle = (start + end) / 2 / FPS
        times[np.abs(times - middle).argmin()] = middle
    fault = store.flags(row).get("corrupted_video", np.zeros(store.snippets[row], bool))
    clear = (np.flatnonzero(~fault) + 0.5) * store.stride / FPS
    times = np.unique([clear[np.abs(clear - when).argmin()] for when in times])
    pictures = [frames[int(t * FPS)] for t in times]
    about = {"fps": FPS, "seconds": seconds, "names": words, "title": role}
    plots.pictures_and_sound(pictures, times, wave, segments, **about)
    plt.show()

# %% [markdown] tags=["core"]
# Now the third, and the idea on which everything rests. A video is a **bag**, its snippets are the
# **instances** in it. We know what is in the bag; not which instance it is. From top to bottom: the
# truth, frame by frame; the snippets that hold an event (in at least half of their frames); which
# of them can be seen, and which heard (Soundstage knows, no training is told); and at the bottom
# *what training is told*. Look at how much is missing between the last row and the first.

# %% tags=["main-figure", "core"]
# What a detector is told (bottom) and what it has to find out (above): one video of Soundstage.
set_matplotlib_formats("png")
row = running["many labels"]
segments, flags, snippets = store.segments(row), store.flags(row), int(store.snippets[row])
step = store.stride / FPS  # seconds a snippet
positive, _ = snippet_truth(store.frame_truth([row]), np.array([snippets]), store.stride)
lines = {"snippets with an event": positive >= store.stride / 2}
lines |= {
    f"can be {s}": flags[f] for s, f in (("seen", "visible"), ("heard", "audible")) if f in flags
}
fig, ax = plt.subplots(figsize=(plots.WIDTH, 2.6))
for code, start, end in segments:
    bar = (start / FPS, (end - start) / FPS)
    ax.broken_barh([bar], (-0.4, 0.8), color=plots.colour_of(code))
    ax.text(bar[0] + bar[1] / 2, -0.5, words[code], ha="center", va="bottom", fontsize="x-small")
for place, on in enumerate(lines.values(), start=1):
    bars = [(k * step, step) for k in range(snippets)]
    colours = [plots.INK if hit else "#E3E3E3" for hit in on]
    ax.broken_barh(bars, (place - 0.4, 0.8), facecolors=colours, edgecolors="white", lw=0.8)
last, seconds = len(lines) + 1, snippets * step
told = ", ".join(words[code] for code in store.videos[row].label.split("-") if code in words)
ax.broken_barh([(0, seconds)], (last - 0.4, 0.8), color="#BBBBBB")
ax.text(seconds / 2, last, f"somewhere in here: {told}", ha="center", va="center")
ax.set_yticks(range(last + 1), ["truth, by frames", *lines, "what training is told"])
ax.set(xlim=(0, seconds), ylim=(last + 0.5, -1.1), xlabel="time (s)")
plt.show()
print(f"{snippets} snippets;", "; ".join(f"{name}: {int(on.sum())}" for name, on in lines.items()))

# %% [markdown]
# The next cell counts the whole set, and asks of every event whether it is seen, and heard, in at
# least half of its snippets. Note two numbers: the **positive share**, the part of all frames that
# is anomalous, and the part of the events that reach one sense only.

# %%
for split in ("train", "test"):
    rows = store.indices(split)
    rows = rows[np.unique(store.video_ids[rows], return_index=True)[1]]  # each video once
    print(
        f"{split:5} {len(rows)} videos, {int(store.labels(rows)[:, 0].sum())} of them normal,",
        end="",
    )
    print(f" {int((~store.has_audio[rows]).sum())} without an audio track;", end="")
    print(
        f" {store.snippets[rows].sum():,} snippets, {store.frames[rows].sum() / FPS / 3600:.1f} h"
    )
print(f"positive share of the test frames: {share:.1%}")
record("positive_share", share, dataset=dataset, split="test")


def sensed(row, name):
    """For each event of a row: does the flag hold in at least half of its snippets?"""
    flag, stride = store.flags(row)[name], store.stride
    events = [flag[a // stride : (b - 1) // stride + 1] for _, a, b in store.segments(row)]
    return [bool(own.mean() >= 0.5) for own in events if len(own)]


if {"visible", "audible"} <= set(store.flag_names):
    seen, ear = (
        np.array(sum((sensed(i, name) for i in range(len(store))), []))
        for name in ("visible", "audible")
    )
    counts = {"both": seen & ear, "only heard": ear & ~seen, "only seen": seen & ~ear}
    for name, hits in (counts | {"neither": ~seen & ~ear}).items():
        print(f"events that can be told by {name:11} {hits.sum():5} {hits.mean():6.0%}")

# %% [markdown] tags=["core"]
# A detector without ears can hardly find what is *only heard*, one without eyes what is *only
# seen*. Events that *neither* can tell stay in the truth, and can only be guessed from what is
# around them, so a detector needs a sense of time as well.
#
# ## 5. How good is good?
#
# A detector gives every frame of every test video a score. Sort all these frames, the highest score
# first, and walk down the list. Whenever you meet an anomalous frame, ask: of the frames so far,
# what part was anomalous? That is the **precision** at this place. Its mean over all anomalous
# frames is the **average precision**, AP. Frames of equal score have no order, so they are passed
# as one block, and the precision is the one at the block's *end*. That matters here: a snippet's
# score is repeated for each of its frames. Five frames by hand, without a tie and with one:

# %% tags=["core"]
anomalous = np.array([1, 0, 1, 0, 0])
toys = {"no tie": [0.9, 0.8, 0.6, 0.4, 0.2], "a block of three": [0.9, 0.6, 0.6, 0.6, 0.2]}
by_hand = {"no tie": (1 / 1 + 2 / 3) / 2, "a block of three": (1 / 1 + 2 / 4) / 2}
for name, scores in toys.items():
    package = average_precision(np.array(scores), positive=anomalous, negative=1 - anomalous)
    print(f"{name:17} by hand {by_hand[name]:.3f}, package {package:.3f}")
    assert np.isclose(by_hand[name], package)

# %% [markdown] tags=["core"]
# What would *no skill at all* get: what is the precision anywhere in a shuffled list?

# %% [markdown] tags=["core"]
# ### Exercise 2
#
# *5 minutes, easy.* What does chance score? Given the events of some videos, one list of
# `(code, start, end)` a video, and the videos' lengths in frames, compute the AP that a random
# detector has on average. Two events may overlap; `my_truth` of section 2 counts a frame once.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution", "core"]
def chance(segments, frames):
    """AP of a random detector: ``segments`` and ``frames`` have one entry a video."""
    # BEGIN SOLUTION
    # Stumbles: adding up the lengths of events counts overlapping frames twice, and
    # averaging shares over videos forgets that frames are pooled.
    truth = [my_truth(own, n) for own, n in zip(segments, frames, strict=True)]
    return float(np.concatenate(truth).mean())
    # END SOLUTION


# %% tags=["check", "core"]
assert np.isclose(chance([[("G", 0, 30)]], [120]), 0.25), "30 of 120 frames"
assert np.isclose(chance([[("G", 0, 30)], []], [120, 180]), 0.1), "normal videos count as well"
overlap = [("G", 0, 30), ("B2", 20, 40)]
assert np.isclose(chance([overlap], [100]), 0.4), "frames 20 to 29 belong to two events"
print("Exercise 2 is solved: chance is the share of anomalous frames.")

# %% [markdown] tags=["core"]
# Now three detectors. One shuffles. One **knows the weak label** of each test video, and gives 1 to
# all frames of an anomalous video and 0 to all others. One is **perfect, by snippets**: it gives
# each snippet the share of its frames that is anomalous. The second measure, **AUC**, is the
# probability that an anomalous frame outscores a normal one, both drawn at random. (`snippet_truth`
# counts the positive and the negative frames of each snippet.)

# %% tags=["core"]
lengths = store.snippets[test]
positive, negative = snippet_truth(store.frame_truth(test), lengths, store.stride)
rng = np.random.default_rng(seed)
detectors = {
    "random order": rng.permutation(lengths.sum()),
    "knows the video's label": np.repeat(1 - store.labels(test)[:, 0], lengths),
    "perfect, by snippets": positive / store.stride,
}
results = {}
for name, s in detectors.items():
    results[name] = average_precision(s, positive, negative), roc_auc(s, positive, negative)
    print(f"{name:26} AP {100 * results[name][0]:5.1f} %   AUC {100 * results[name][1]:5.1f} %")
    record("frame_ap", results[name][0], dataset=dataset, detector=name, split="test")
block = detectors["knows the video's label"] > 0
inside = positive[block].sum() / (store.stride * block.sum())
print(f"positive share: {share:.1%} of all frames, {inside:.1%} of those in anomalous videos")
assert np.isclose(inside, results["knows the video's label"][0])
assert abs(results["random order"][0] - share) < 0.02

# %% [markdown] tags=["core"]
# **A random detector's AP is the positive share:** wherever you stop in a shuffled list, about that
# part so far is anomalous. An AP means nothing without it.
#
# **Knowing the right videos is not finding the event.** All frames of all anomalous videos are one
# tied block, so the AP of the second is *exactly* the positive share inside them. This is the gap
# that weakly supervised learning has to close: from *which* to *when*. The last row is the ceiling:
# edges of events lie inside snippets. AP *over snippets* gives each of them one vote, and needs a
# rule for the mixed ones (01's probe asks the middle frame). Where no edge lies inside a snippet,
# both are equal; the shorter the events, the more they may differ.
#
# The second's AUC looks kinder than its AP. Is it? Take one detector of fixed skill, which scores
# normal frames around 0 and anomalous ones around 1.5 (with a spread of 1), and let only the
# anomalies become rarer:

# %% tags=["core"]
print("positive share     AUC      AP   normal frames among the top alarms")
for rare in (0.5, 0.2, 0.05, 0.01):
    hits = rng.random(100_000) < rare
    skill = rng.normal(1.5 * hits)
    alarms = np.argsort(-skill)[: hits.sum()]  # as many alarms as there are anomalous frames
    ap, auc = average_precision(skill, hits, ~hits), roc_auc(skill, hits, ~hits)
    print(f"{rare:14.0%} {auc:7.0%} {ap:7.0%}   {1 - hits[alarms].mean():.0%}")

# %% [markdown] tags=["core"]
# **AUC flatters.** It hardly moves, while at the bottom of the table most alarms are false. A guard
# would side with AP, and so does the field. The paper's on XD-Violence, and ours, is over *frames*.
#
# ## 6. What you will build
#
# Here is the detector, from left to right.
#
# - **Two frozen encoders.** CLIP has learned from captioned pictures to put an image and a sentence
#   about it close together in one space; Wav2CLIP puts sounds there too. Neither is trained
#   here. (On Soundstage small stand-ins take their place.)
# - **Time.** A snippet alone says little. The video part lets snippets look at their neighbours and
#   at their look-alikes; the audio part is a temporal convolution.
# - **Fusion.** Vision comes first, and sound is added through a gate that can close. Here the
#   detector is meant to learn when to listen; 03 tests that.
# - **Two branches.** The **classification branch** gives the confidence. The **alignment branch**
#   compares each snippet with an embedding of each class word, and gives the **alignment map**: one
#   column a class. The embeddings come from learned words around the class word (a **prompt**) and
#   are bent towards the video at hand by the audio-visual prompt.
# - **A student.** Cameras without microphones exist. A second detector, which only sees, learns to
#   imitate the fused features of the first, its **teacher**, and to say where that cannot be done
#   (uncertainty-driven knowledge distillation, UKD: 07).
#
# The small numbers are the notebooks in which each part is built, the symbols at the arrows its
# names there.

# %% tags=["main-figure", "core"]
# The whole detector: what is frozen, what is learned, and the notebook that builds each part.
architecture()
plt.show()

# %% [markdown] tags=["core"]
# Every notebook answers one question, and runs alone. [01](01_encoders.ipynb) to
# [05](05_mil_align.ipynb) build the parts; [06](06_teacher.ipynb) trains the whole and
# [07](07_ukd.ipynb) the student; [08](08_ablations.ipynb), the **study**, asks over seeds what each
# part buys; [09](09_xd_violence.ipynb) what can be checked of the paper;
# [10](10_your_own_video.ipynb) takes your own video, [11](11_the_field.ipynb) the systems before
# it.
#
# ## 7. The scoreboard
#
# A lesson ends with this figure, which grows: the bars set so far, with their intervals (03),
# the lesson's own in blue.

# %% tags=["core"]
scoreboard(study.results(), upto="00", known={"chance": share}, data=dataset)
plt.show()

# %% [markdown] tags=["core"]
# ## Recap
#
# - say what training is given, what is asked for afterwards, and why the label is called weak: the
#   set of classes of a whole video; a confidence and a class for every frame; the label holds for
#   the bag and for no instance in it.
# - turn seconds into frames and snippets, and a video's truth into its weak label: 24 frames a
#   second, 16 frames a snippet, exclusive ends; then forget the times and keep the set of codes.
# - name the classes, what pretends to be one of them, and which sense can tell: fireworks for
#   shots, thunder for explosions, cheering for a riot; events that only one sense can tell, and
#   some that neither can.
# - say what a random detector scores, and why AUC flatters: the positive share, as AP; AUC hardly
#   moves however rare anomalies become and however many alarms are false.
# - point at each part of the detector and say what it is for: frozen encoders for sight, sound
#   and words; context in time; a gate meant for listening; one branch for *how anomalous*, one
#   for *what*; a student for cameras without ears.
#
# Notebook [01](01_encoders.ipynb) asks what the detector's frozen eyes and ears already know.
