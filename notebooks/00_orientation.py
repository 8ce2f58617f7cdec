# %% [markdown]
# # 00 · Orientation
#
# **Question:** What is weakly supervised anomaly detection, what does the data look and sound
# like, and what will you build?
#
# **You will be able to:**
#
# - say what training is given, what is asked for afterwards, and why the label is called weak
# - name the seven classes, what pretends to be one of them, and what goes wrong with a sensor
# - turn seconds into frames and snippets, and a video's truth into its weak label
# - say what a random detector scores, and why AUC flatters
# - point at each part of the detector and say what it is for
#
# **Prerequisites:** Python and a little NumPy; PyTorch comes in with notebook
# [01](01_encoders.ipynb)
#
# **Minutes:** 1 on two CPU cores; 20 to teach
#
# **Reads:** the **feature store**, a folder that holds what the **encoders**, networks that turn
# pictures and sounds into numbers ([01](01_encoders.ipynb)), made of every video (Soundstage
# unless you say otherwise)
#
# **Writes:** numbers to `metrics.json`

# %% tags=["parameters"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
seed: int = 0  # of the random detectors

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, Audio, display
from matplotlib_inline.backend_inline import set_matplotlib_formats

from avadclip_lite.config import SAMPLE_RATE
from avadclip_lite.evaluate import average_precision, roc_auc, snippet_truth
from avadclip_lite.experiments.metrics import record
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.video.reader import read_clip
from avadclip_lite.viz import plots
from avadclip_lite.viz.diagram import architecture
from avadclip_lite.viz.lesson import FPS, clip_path, examples, open_stage

plots.use_style()
check_parameters(globals())  # plain papermill hands lists over as text
store = open_stage(data)
words = dict(zip(store.classes.codes, store.classes.words, strict=True))
running = examples(store)  # the rows of the three videos that go through all notebooks
test = store.indices("test")
dataset = "Soundstage" if store.encoder == "soundstage" else store.classes.name

# %% [markdown]
# ## 1. The task
#
# Cameras record far more than anyone can watch. Somewhere in those hours there is a fight, a crash,
# an explosion; nearly all of the rest is people walking by. An **anomaly detector** watches in
# their place. For every moment of a video it is to answer two questions:
#
# - **How anomalous is this?** One number between 0 and 1, the **confidence**. This is the coarse
#   answer: enough to wake a guard.
# - **What is it?** One class out of a fixed list, *normal* among them. This is the fine answer:
#   enough to call the right help.
#
# Learning this the usual way takes videos in which someone has marked where every event begins and
# ends. That is slow, dull and distressing work. Saying "there is a shooting somewhere in this
# half hour" takes a moment. So that is all we are given: for each training video, the *set of
# classes* that occur somewhere in it. Such a label is **weak**: it is true of the video and silent
# about every single moment of it. Training videos are **untrimmed** too, that is, nobody cut away
# the uneventful minutes around the event.
#
# The task is called **weakly supervised video anomaly detection**. The method that these notebooks
# rebuild is [AVadCLIP](https://arxiv.org/abs/2504.04495), whose idea is in its first two letters:
# **a**udio and **v**ideo. Shots are heard round a corner, screams in the dark. But ears can be
# fooled as well as eyes, so the detector has to learn *when* to listen.

# %% [markdown]
# ## 2. The stage
#
# The paper works on **XD-Violence**: some two hundred hours of films, sports, street cameras and
# home videos. We cannot ship any of that, nor features computed from it, nor the published weights.
# And two hundred hours are no good for learning a method in an afternoon.
#
# What ships instead is **Soundstage**: a small world that is *drawn and synthesised by a program*.
# **Nothing on it is footage.** No camera filmed it, no microphone recorded it, nobody in it is
# real. It has the classes of XD-Violence, the same form of labels and annotations, and the same
# troubles: events that are heard but not seen, seen but not heard, sounds and pictures that lie,
# sensors that fail. A score on Soundstage says whether a *mechanism* works; it says nothing about
# real streets, and its level must never be put beside a number from the paper. What may be compared
# is a sign: which of two detectors is ahead.
#
# One more thing to be open about: in a world that somebody made up, difficulty is somebody's
# choice. Three properties of Soundstage are **design parameters**: how rare anomalies are, how much
# is lost without sound, and how much room is left below a perfect score. They were set by
# calibration, on videos that do not ship, and then frozen; `data/README.md` lists every world that
# was tried and what was seen on the way. So that sound *helps* here was built in. *How* a detector
# makes use of it was not, and that is what the notebooks study.
#
# These are the classes, with the codes that stand for them in the names of videos:

# %%
for code, word in words.items():
    print(f"{code:3} {word}")

# %% [markdown]
# ### What they look like
#
# Of each class a short clip ships, six seconds with one event from the first second to the fifth.
# Here is one moment of each, drawn large; a detector gets the same pictures 64 pixels wide.


# %%
def clip(name):
    """Frames (N, H, W, 3) and sound (samples,) of a clip that ships."""
    frames, _, wave = read_clip(clip_path(name.replace(" ", "_")))
    return frames, wave


MOMENT = 66  # frames: in the middle of the event
# pictures with grain are ten times smaller as JPEG
set_matplotlib_formats("jpeg", pil_kwargs={"quality": 85})
shown = list(words.values())[1:]
plots.contact_sheet([clip(name)[0][MOMENT] for name in shown], shown, columns=6)
plt.show()

# %% [markdown]
# Crowds, flashes, fire, people on the ground: clear enough at this size and with the camera right
# in front. Now the other half of the world.
#
# ### What pretends
#
# A **distractor** is something harmless that is meant to look or sound like an anomaly. A video may
# be full of them and still be normal. Each was made with something in mind:
#
# | distractor | meant to resemble |
# |---|---|
# | thunder | an explosion |
# | fireworks | shots and explosions |
# | horn | a car accident |
# | door slam | shots |
# | cheering | a riot |
# | camera flash | the flash of a shot |
# | headlights | the flash of a shot or of an explosion |
# | hugging | a fight |
# | dancing | a fight |
#
# That is the intention. Which of them fool anybody, and whether they fool the eye, the ear or both,
# has to be measured; notebook 01 does so.
# Look at each and ask what gives it away.

# %%
DISTRACTORS = ["thunder", "fireworks", "horn", "door slam", "cheering"]
DISTRACTORS += ["camera flash", "headlights", "hugging", "dancing"]
pictures = [clip(f"distractor {name}")[0][MOMENT] for name in DISTRACTORS]
plots.contact_sheet(pictures, DISTRACTORS, columns=5)
plt.show()

# %% [markdown]
# ### What goes wrong
#
# An event may be **not in the picture at all**, off camera, behind a van or in the dark, although
# the video is labelled *abuse* all the same; or not in the sound, because it is far away or the
# place is loud. Sensors fail as well. Pictures go black, get too dark, or are lost to *static* for
# a second or so, because the radio link to the camera is bad; microphones clip, drop out, or have
# static of their own. Some videos have no audio track at all, as happens in real collections. How
# much of the test set is broken in one way or another is printed below. (That much is on purpose.
# In earlier versions of the stage a single snippet told nearly everything, and nothing was gained
# by looking at its neighbours.)

# %%
faults = ["black frames", "low light", "static"]
pictures = [clip(f"fault {name}")[0][MOMENT] for name in faults]
plots.contact_sheet(pictures, faults, columns=5)
plt.show()
if store.flag_names:
    broken = [
        np.concatenate([store.flags(i)[f"corrupted_{sense}"] for i in test])
        for sense in ("video", "audio")
    ]
    print(f"of all test snippets, {broken[0].mean():.0%} have a broken picture, ", end="")
    print(f"{broken[1].mean():.0%} a broken sound, {(broken[0] & broken[1]).mean():.0%} both")

# %% [markdown]
# ### What they sound like
#
# A **spectrogram** shows sound as a picture: time from left to right, pitch from bottom to top,
# brightness for energy. On the left is an anomaly, on the right something harmless that resembles
# it. Three things help to read them. A bang is a bright vertical line, because it has every pitch
# at once. A voice is a stack of wavy horizontal lines. A crowd is a cloud. Compare each pair: what
# tells left from right?

# %%
PAIRS = {
    "shooting": "door slam",
    "explosion": "thunder",
    "riot": "cheering",
    "fighting": "dancing",
    "car accident": "horn",
    "abuse": "fireworks",
}
heard = {name: clip(name)[1] for name in PAIRS}
heard |= {name: clip(f"distractor {name}")[1] for name in PAIRS.values()}
heard = {name: wave[SAMPLE_RATE : 4 * SAMPLE_RATE].clip(-1, 1) for name, wave in heard.items()}
fig, axes = plt.subplots(len(PAIRS), 2, figsize=(plots.WIDTH, 8.4), sharex=True, sharey=True)
for row, pair in zip(axes, PAIRS.items(), strict=True):
    for ax, name in zip(row, pair, strict=True):
        plots.spectrogram(ax, heard[name])
        ax.set_title(name, color=plots.TRUTH if name in PAIRS else plots.INK)
    row[1].set_ylabel("")
for ax in axes[-1]:
    ax.set_xlabel("time (s)")
plt.show()
for side, names in {"anomalies": PAIRS, "harmless": PAIRS.values()}.items():
    decibels = [10 * np.log10(np.mean(heard[name] ** 2)) for name in names]
    print(f"loudness of the {side:9}: {min(decibels):.0f} to {max(decibels):.0f} dB")

# %% [markdown]
# Shots and slams are both rows of bangs, but shots are broader and follow each other. Explosion and
# thunder both rumble, but the explosion begins at once and thunder swells. A riot and a cheering
# crowd are the same cloud, except that a riot clinks with broken glass. Blows fall at no fixed
# times, music keeps its beat. Those are differences that can be learned; loudness, printed above,
# does not part the columns.
#
# Now listen. (A page that shows notebooks without running them, such as GitHub's, may leave out the
# players; they work in JupyterLab and in the report.)

# %% tags=["nbval-ignore-output"]
cells = [
    f"<td><b>{name}</b><br>{Audio(wave, rate=SAMPLE_RATE, normalize=False)._repr_html_()}</td>"
    for pair in ("shooting", "explosion", "riot")
    for name, wave in ((pair, heard[pair]), (PAIRS[pair], heard[PAIRS[pair]]))
]
rows = [f"<tr>{left}{right}</tr>" for left, right in zip(cells[::2], cells[1::2], strict=True)]
display(HTML(f"<table>{''.join(rows)}</table>"))

# %% [markdown]
# ## 3. A video is a bag of snippets
#
# ### Frames, snippets, seconds
#
# A video runs at 24 frames a second. No detector needs all of them, so the video is cut into
# **snippets** of 16 frames; 16 is called the **stride**. A snippet becomes one feature vector for
# its picture and one for its sound (on Soundstage, the picture is the frame in the middle of the
# 16; the sound is all of it), and from then on the snippet is the unit: the detector gives one
# answer for each. A video with $T$ snippets has $N = 16\,T$ frames.
#
# Let us do the sums once by hand, for a video of thirty snippets in which somebody is beaten from
# frame 200 to frame 330. An event is written as a first frame and an end. The end is **exclusive**:
# it is the first frame that no longer belongs to the event, so that the length is the difference.
# (The annotations of XD-Violence are written in the same way.)

# %%
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

# %% [markdown]
# Frame 200 does not begin a snippet: snippet 12 starts at frame 192. So its first eight frames are
# normal and the next eight are not. The truth has the resolution of frames, a detector's answer
# that of snippets, and at the edges of every event the two disagree. Even a perfect detector of
# snippets does not quite score 100 %; section 4 prints how far it gets.
#
# Here is the truth as an array, made in three lines, and held against what the package says for
# *every* test video. And with it the opposite direction: all that training is told about a video is
# the set of its classes. It is written at the end of the video's name (`label_B2-G-0`: shooting and
# explosion, with a zero for padding) and becomes a row of zeros and ones, one column a class.
# Column 0 stands for *normal*, and is 1 only if nothing else is.


# %%
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
assert np.array_equal(truth, store.frame_truth(test))
weak = np.stack([my_weak_label(store.videos[i].label) for i in test])
assert np.array_equal(weak, store.labels(test))

print(f"{'what training is told':58}{' '.join(f'{code:>2}' for code in words)}")
for row in running.values():
    label = store.labels([row])[0].astype(int)
    print(f"{store.videos[row].name:58}{' '.join(f'{hot:2}' for hot in label)}")

# %% [markdown]
# ### Three videos to follow
#
# Three test videos go through all the notebooks. Each of them is an argument:
#
# - **sound saves:** an event that can be heard but not seen. A detector without ears must miss it.
# - **sound lies:** a normal video with fireworks, hugs and a lively crowd. A detector that is
#   startled by every bang must fail.
# - **many labels:** several classes in one video. Saying *that* something happens is not enough.
#
# Each ships as a clip with sound. Pictures above, spectrogram below. Pictures from inside an event
# have a frame around them, and the event is outlined in the spectrogram. The pictures are taken
# where there is no static; in the spectrogram static is the even blocks from top to bottom. Look at
# whether you can find the events by eye, and then at whether the spectrogram shows something that
# the pictures do not.

# %%
clips = {}  # role -> frames (N, H, W, 3), wave
for role, row in running.items():
    video = store.videos[row]
    print(f"{role}: {video.name}")
    path = clip_path(video.name)
    if path is None:  # other data has features only
        continue
    frames, _, wave = read_clip(path)
    clips[role] = frames, wave
    segments = store.segments(row)
    seconds = len(frames) / FPS
    wanted = np.linspace(0.03, 0.95, 8) * seconds
    for _, start, end in segments:  # let the pictures meet what happens
        middle = (start + end) / 2 / FPS
        wanted[np.abs(wanted - middle).argmin()] = middle
    clear = np.flatnonzero(~store.flags(row)["corrupted_video"])
    times = (clear + 0.5) * store.stride / FPS
    times = np.unique([times[np.abs(times - when).argmin()] for when in wanted])
    plots.pictures_and_sound(
        [frames[int(t * FPS)] for t in times],
        times,
        wave,
        segments,
        fps=FPS,
        seconds=seconds,
        names=words,
        title=role,
    )
    plt.show()

# %% [markdown]
# In *sound saves* the one picture from inside the accident shows an ordinary street in which
# nothing has crashed. The spectrogram has it all: the wavy lines of skidding tyres, the bang, the
# ringing afterwards. In *sound lies* the rising curves that end in a flash are rockets, and nobody
# is hurt. In *many labels* it is the other way round for the shooting: seen clearly, and drowned by
# a loud place. The two events after it leave voices in the sound, those stacks of lines, and one
# has to look twice to tell them apart.
#
# ### Who knows what
#
# Everything so far in one figure, for the video with many labels. From top to bottom: the pictures;
# the truth, frame by frame; the snippets that hold an event (at least half of their frames do);
# which of them can be seen, and which heard; and at the bottom, in grey, *what training is told*.
#
# The video is a **bag**, its snippets are the **instances** in it. We know what is in the bag;
# not which instance it is. Look at how much is missing between the row *what training is told*
# and the row *truth*.

# %% tags=["main-figure"]
# What a detector is told (bottom) and what it has to find out (above): one video of Soundstage.
set_matplotlib_formats("png")
row = running["many labels"]
segments, flags = store.segments(row), store.flags(row)
frames, _ = clips.get("many labels", ((), None))
snippets = int(store.snippets[row])
step = store.stride / FPS  # seconds a snippet
seconds = snippets * step
positive, _ = snippet_truth(store.frame_truth([row]), np.array([snippets]), store.stride)

lines = {"snippets with an event": positive >= store.stride / 2}
if flags:
    lines |= {"can be seen": flags["visible"], "can be heard": flags["audible"]}
fig = plt.figure(figsize=(plots.WIDTH, 3.9 if len(frames) else 2.4))
grid = fig.add_gridspec(2, 8, height_ratios=(1, 2.1) if len(frames) else (0.01, 1))
clear = np.flatnonzero(~flags["corrupted_video"]) if len(frames) else []
for place in range(8 if len(frames) else 0):
    ax = fig.add_subplot(grid[0, place])
    nearest = clear[np.abs(clear - (place + 0.5) * snippets / 8).argmin()]  # not in static
    ax.imshow(frames[int((nearest + 0.5) * store.stride)])
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
ax = fig.add_subplot(grid[1, :])
for code, start, end in segments:
    bar = (start / FPS, (end - start) / FPS)
    ax.broken_barh([bar], (-0.4, 0.8), color=plots.colour_of(code))
    ax.text(bar[0] + bar[1] / 2, -0.5, words[code], ha="center", va="bottom", fontsize="x-small")
for place, on in enumerate(lines.values(), start=1):
    bars = [(k * step, step) for k in range(snippets)]
    colours = [plots.INK if hit else "#E3E3E3" for hit in on]
    ax.broken_barh(bars, (place - 0.4, 0.8), facecolors=colours, edgecolors="white", lw=0.8)
last = len(lines) + 1
told = ", ".join(words[code] for code in store.videos[row].label.split("-"))
ax.broken_barh([(0, seconds)], (last - 0.4, 0.8), color="#BBBBBB")
ax.text(seconds / 2, last, f"somewhere in here: {told}", ha="center", va="center")
ax.set_yticks(range(last + 1), ["truth, by frames", *lines, "what training is told"])
ax.set(xlim=(0, seconds), ylim=(last + 0.5, -1.1), xlabel="time (s)")
ax.tick_params(axis="y", length=0)
ax.spines["left"].set_visible(False)
plt.show()
print(
    f"{snippets} snippets; " + "; ".join(f"{name}: {int(on.sum())}" for name, on in lines.items())
)

# %% [markdown]
# The last row is three words for the whole of the video, and training gets no more than that. The
# row *truth* is what has to come out, with the right word at each event. And the rows *can be
# seen* and *can be heard* have holes: moments of an event that cannot be seen, or cannot be
# heard, or neither.
#
# ### How much there is
#
# Now the whole set. Training videos have a truth as well (Soundstage knows everything), but no
# training will ever look at it. Note two numbers in the table: the **positive share**, that is, the
# part of all frames that is anomalous, and the number of videos without an audio track.

# %%
table = {}
for split in ("train", "test"):
    rows = store.indices(split)
    rows = rows[np.unique(store.video_ids[rows], return_index=True)[1]]  # each video once
    marked = store.frame_truth(rows)
    table[split] = {
        "videos": f"{len(rows)}",
        "of them normal": f"{int(store.labels(rows)[:, 0].sum())}",
        "without an audio track": f"{int((~store.has_audio[rows]).sum())}",
        "hours": f"{store.frames[rows].sum() / FPS / 3600:.1f}",
        "snippets": f"{store.snippets[rows].sum():,}",
        "frames": f"{store.frames[rows].sum():,}",
        "positive share": f"{marked.mean():.1%}" if marked.any() else "unknown",
    }
print(f"{'':24}" + "".join(f"{split:>10}" for split in table))
for name in table["test"]:
    print(f"{name:24}" + "".join(f"{column[name]:>10}" for column in table.values()))
share = store.frame_truth(test).mean()
record("positive_share", share, dataset=dataset, split="test")

# %% [markdown]
# How often does one sense have to do without the other? Soundstage notes for each snippet whether
# its event could be seen, and whether it could be heard. Count it twice: by events, where an event
# counts as seen if at least half of its snippets are, and by single snippets.


# %%
def sensed(row, name):
    """For each event of a row: does the flag hold in at least half of its snippets?"""
    flag = store.flags(row)[name]
    return [
        bool(flag[start // store.stride : (end - 1) // store.stride + 1].mean() >= 0.5)
        for _, start, end in store.segments(row)
    ]


if store.flag_names:
    every = range(len(store))
    events = np.array(
        [sum((sensed(i, name) for i in every), []) for name in ("visible", "audible")]
    )
    flags = {
        name: np.concatenate([store.flags(i)[name] for i in every])
        for name in ("anomalous", "visible", "audible")
    }
    single = np.array([flags["visible"], flags["audible"]])[:, flags["anomalous"]]
    senses = {
        "seen and heard": (True, True),
        "heard only": (False, True),
        "seen only": (True, False),
        "neither": (False, False),
    }
    print(f"{'':16}{'events':>14}{'anomalous snippets':>24}")
    for name, (seen, heard_too) in senses.items():
        line = f"{name:16}"
        for pair, width in ((events, 8), (single, 18)):
            hits = (pair[0] == seen) & (pair[1] == heard_too)
            line += f"{hits.sum():{width},}{hits.mean():6.0%}"
        print(line)
    assert (events[0] != events[1]).mean() > 0.3, "many events are meant for one sense only"

# %% [markdown]
# Two lessons, one from each column. More than half of all *events* reach one sense only: a
# detector without ears, or without eyes, has to miss many of them. And a good part of the
# anomalous *snippets* cannot be told by either, among other things because of static. What
# happens in them can only be guessed from their neighbours, so a detector needs a sense of time
# as well.
#
# The row *neither* has a count under *events* too: about one event in ten cannot be perceived by
# either sense for at least half of its length each. They stay in the truth, and are part of what
# keeps every detector from a perfect score.

# %% [markdown]
# ## 4. How good is good?
#
# ### Average precision, and what chance gives
#
# A detector gives every frame of every test video a score. Sort all these frames, the highest score
# first, and walk down the list. Whenever you meet an anomalous frame, ask: of the frames so far,
# which part was anomalous? That is the **precision** at this place. Its mean over all anomalous
# frames is the **average precision**, AP.
#
# **Ties.** Frames of equal score have no order, so they are passed as one block, and the precision
# of each anomalous frame in the block is the one read at the block's *end*. That matters here: the
# 16 frames of a snippet always share their score. Five frames by hand, without a tie and with one:

# %%
scores = np.array([0.9, 0.8, 0.6, 0.4, 0.2])
anomalous = np.array([1, 0, 1, 0, 0])
by_hand = (1 / 1 + 2 / 3) / 2  # the anomalous frames are first and third in the list
package = average_precision(scores, positive=anomalous, negative=1 - anomalous)
print(f"by hand {by_hand:.3f}, package {package:.3f}")
assert np.isclose(by_hand, package)

tied = np.array([0.9, 0.6, 0.6, 0.6, 0.2])  # the second to the fourth are one block
by_hand = (1 / 1 + 2 / 4) / 2  # at the end of the block, two of four frames were anomalous
package = average_precision(tied, positive=anomalous, negative=1 - anomalous)
print(f"with a tie: by hand {by_hand:.3f}, package {package:.3f}")
assert np.isclose(by_hand, package)

# %% [markdown]
# Anyone who reads a score must know what *no skill at all* would get. Give every test snippet a
# random score, twenty times over. (`snippet_truth` counts the positive and the negative frames of
# each snippet; a snippet's score is the score of its 16 frames.) The second measure, **AUC**, is
# the probability that an anomalous frame outscores a normal one, both drawn at random.

# %%
positive, negative = snippet_truth(truth, store.snippets[test], store.stride)
rng = np.random.default_rng(seed)
shuffled = [rng.permutation(len(positive)) for _ in range(20)]
chance_ap = np.array([average_precision(s, positive, negative) for s in shuffled])
chance_auc = np.array([roc_auc(s, positive, negative) for s in shuffled])
print(f"positive share           {share:.1%}")
print(f"AP of a random detector  {chance_ap.mean():.1%}  ({chance_ap.min():.1%} ", end="")
print(f"to {chance_ap.max():.1%})")
print(f"AUC of a random detector {chance_auc.mean():.1%}")
assert abs(chance_ap.mean() - share) < 0.01 and abs(chance_auc.mean() - 0.5) < 0.01

# %% [markdown]
# **A random detector's AP is the positive share.** Wherever you stop in a shuffled list, that part
# of the frames so far is anomalous. So an AP means nothing without the share that belongs to it,
# and APs of data sets with different shares cannot be compared.
#
# AUC looks kinder: chance is always one half. That is its weakness. Take one detector of fixed
# skill, which scores normal frames around 0 and anomalous ones around 1.5 (with a spread of 1), and
# let only the anomalies become rarer:

# %%
print("positive share     AUC      AP   normal frames among the top alarms")
for rare in (0.5, 0.2, 0.05, 0.01):
    hits = rng.random(100_000) < rare
    skill = rng.normal(1.5 * hits)
    alarms = np.argsort(-skill)[: hits.sum()]  # as many alarms as there are anomalous frames
    ap, auc = average_precision(skill, hits, ~hits), roc_auc(skill, hits, ~hits)
    print(f"{rare:14.0%} {auc:7.0%} {ap:7.0%}   {1 - hits[alarms].mean():.0%}")

# %% [markdown]
# **AUC flatters.** It does not move, while at the bottom of the table most alarms are false. A
# guard who is woken by nothing most nights would side with AP, and so does the field: frame-level
# AP is the number that the paper reports on XD-Violence and the one we report here.
#
# ### Which is not when
#
# Two more scores, and both cheat. One **knows the weak label** of each test video, and gives 1 to
# all frames of an anomalous video and 0 to all others. It knows *which*, and nothing about *when*.
# The other is **perfect, by snippets**: it gives each snippet the share of its frames that is
# anomalous.

# %%
lengths = store.snippets[test]
detectors = {
    "random order": rng.permutation(lengths.sum()),
    "knows the video's label": np.repeat(1 - store.labels(test)[:, 0], lengths),
    "perfect, by snippets": positive / store.stride,
}
results = {
    name: (average_precision(s, positive, negative), roc_auc(s, positive, negative))
    for name, s in detectors.items()
}
print(f"{'score':26}{'AP, %':>7}{'AUC, %':>8}")
for name, (ap, auc) in results.items():
    print(f"{name:26}{100 * ap:7.1f}{100 * auc:8.1f}")
    record("frame_ap", ap, dataset=dataset, detector=name, split="test")
inside = positive[detectors["knows the video's label"] > 0].sum() / (
    store.stride * (detectors["knows the video's label"] > 0).sum()
)
print(f"positive share: {share:.1%} of all frames, {inside:.1%} of those in anomalous videos")
assert np.isclose(inside, results["knows the video's label"][0])

# %% [markdown]
# **Knowing the right videos is not finding the event.** The detector that knows the labels has an
# AUC that looks respectable. All frames of all anomalous videos are one tied block, so its AP is
# *exactly* the positive share inside anomalous videos, the last number printed: all of it comes
# from leaving out the normal videos, and nothing from finding the event in the others. This is the
# very gap that weakly supervised learning has to close: from *which* to *when*. And the last row is
# the ceiling: whatever answers by snippets cannot get above it.
#
# ## 5. What you will build
#
# Here is the detector. Follow it from left to right.
#
# - **Two frozen encoders.** CLIP has learned from captioned pictures to put an image and a sentence
#   about it at the same place of one space; Wav2CLIP puts sounds into that space too. Neither is
#   trained here. Each snippet becomes one vector for its pictures and one for its sound. (On
#   Soundstage two small stand-ins, made in the same way, take their place.)
# - **Time.** A snippet alone says little. The video part lets snippets look at their neighbours and
#   at their look-alikes; the audio part is a temporal convolution.
# - **Fusion.** Vision comes first, and sound is added through a gate that can close. This is
#   meant to be where the detector learns when to listen; 03 looks whether it is.
# - **Two branches.** The **classification branch** gives the confidence. The **alignment branch**
#   compares each snippet with an embedding of each class word, and gives the **alignment map**: one
#   column a class. The embeddings come from learned words around the class word (a **prompt**) and
#   are bent towards the video at hand by the audio-visual prompt.
# - **A student.** Cameras without microphones exist. A second detector that sees only video learns
#   to imitate the fused features of the first, its **teacher**, and to say where that cannot be
#   done.
#
# The small numbers are the notebooks in which each part is built. The symbols at the arrows are
# names that you will meet there ($x_v$ for pictures, $x_a$ for sound, and so on); there is
# nothing to learn about them yet. (To keep the drawing simple, the arrow $a, x_{av}$ into the
# prompt starts at the fusion; $a$ itself is the confidence, which the classification branch
# gives.)

# %% tags=["main-figure"]
# The whole detector: what is frozen, what is learned, and the notebook that builds each part.
architecture()
plt.show()

# %% [markdown]
# Every notebook answers one question, and runs alone. (MIL is multiple-instance learning, that
# is, learning from the labels of bags; UKD is distillation with uncertainty, the way in which the
# student imitates its teacher.)
#
# | notebook | question |
# |---|---|
# | [01 encoders](01_encoders.ipynb) | What do frozen CLIP and Wav2CLIP see and hear? |
# | [02 temporal MIL](02_temporal_mil.ipynb) | How do video labels become frame scores? |
# | [03 adaptive fusion](03_adaptive_fusion.ipynb) | When should the model listen? |
# | [04 prompts](04_prompts.ipynb) | How do learned words and the video reshape class embeddings? |
# | [05 MIL-Align](05_mil_align.ipynb) | How does the alignment map name and localise an event? |
# | [06 teacher](06_teacher.ipynb) | What does the whole audio-visual detector find? |
# | [07 UKD](07_ukd.ipynb) | What survives when the microphone is gone? |
# | [08 ablations](08_ablations.ipynb) | What does each part buy, over seeds, with error bars? |
#
# Two more leave the stage: [09](09_xd_violence.ipynb) takes real XD-Violence features,
# [10](10_your_own_video.ipynb) a video of your own.
#
# ## Exercises

# %% [markdown]
# ### Exercise 1
#
# *5 minutes, easy.* A line of an annotation file reads `NAME CODE start end CODE start end ...`, in
# frames, with exclusive ends. Which snippets hold at least one anomalous frame? Return their
# numbers, sorted, each once. Beware of an event that ends where a snippet ends.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def snippets_of(line, stride=16):
    """Numbers of the snippets that an annotation line touches, a sorted list."""
    # BEGIN SOLUTION
    # Stumbles: an event that ends at frame 48 does not touch snippet 3, because the end is
    # exclusive, and two events may touch the same snippet.
    numbers = line.split()[1:]
    found = set()
    for start, end in zip(numbers[1::3], numbers[2::3], strict=True):
        found |= set(range(int(start) // stride, (int(end) - 1) // stride + 1))
    return sorted(found)
    # END SOLUTION


# %% tags=["check"]
assert snippets_of("v B5 40 50") == [2, 3], "frames 40 to 49 lie in snippets 2 and 3"
assert snippets_of("v B5 32 48") == [2], "the end is exclusive: frame 48 is no longer anomalous"
assert snippets_of("v B2 0 20 G 16 40") == [0, 1, 2], "each snippet once"
for i in test:
    line = " ".join(["v", *(f"{code} {a} {b}" for code, a, b in store.segments(i))])
    touched = store.frame_truth([i]).reshape(-1, store.stride).any(axis=1)
    assert snippets_of(line, store.stride) == np.flatnonzero(touched).tolist(), line
print("Exercise 1 is solved.")

# %% [markdown]
# ### Exercise 2
#
# *5 minutes, easy.* What does chance score? Given the events of some videos, one list of
# `(code, start, end)` a video, and the videos' lengths in frames, compute the AP of a random
# detector. Two events may overlap, and a frame is anomalous only once.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def chance(segments, frames):
    """AP of a random detector: ``segments`` and ``frames`` have one entry a video."""
    # BEGIN SOLUTION
    # Stumbles: adding up the lengths of events counts overlapping frames twice, and
    # averaging shares over videos forgets that frames are pooled.
    truth = [my_truth(own, n) for own, n in zip(segments, frames, strict=True)]
    return float(np.concatenate(truth).mean())
    # END SOLUTION


# %% tags=["check"]
assert np.isclose(chance([[("G", 0, 30)]], [120]), 0.25), "30 of 120 frames"
assert np.isclose(chance([[("G", 0, 30)], []], [120, 180]), 0.1), "normal videos count as well"
overlap = [("G", 0, 30), ("B2", 20, 40)]
assert np.isclose(chance([overlap], [100]), 0.4), "frames 20 to 29 belong to two events"
found = chance([store.segments(i) for i in test], store.frames[test])
assert np.isclose(found, share), f"the test set's positive share is {share}"
print(f"Exercise 2 is solved: a random detector scores {found:.1%} on the test set.")

# %% [markdown]
# ## Recap
#
# - say what training is given, what is asked for afterwards, and why the label is called weak: the
#   set of classes of a whole video; a confidence and a class for every frame; the label holds for
#   the bag and says nothing about any instance in it.
# - name the seven classes, what pretends to be one of them, and what goes wrong with a sensor: door
#   slams for shots, thunder for explosions, cheering for a riot, hugs for fights; events that only
#   one sense can tell at all, static, and microphones that fail. All of it is synthetic.
# - turn seconds into frames and snippets, and a video's truth into its weak label: 24 frames a
#   second, 16 frames a snippet, exclusive ends; then forget the times and keep the set of codes.
# - say what a random detector scores, and why AUC flatters: AP equals the positive share; AUC stays
#   the same however rare anomalies become and however many alarms are false.
# - point at each part of the detector and say what it is for: frozen encoders for sight, sound
#   and words; context in time; a gate meant for listening; one branch for *how anomalous*, one
#   for *what*; a student for cameras without ears.
#
# So far the detector is a drawing. Notebook [01](01_encoders.ipynb) asks what its frozen eyes and
# ears already know.
