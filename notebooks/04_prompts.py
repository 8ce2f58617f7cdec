# %% [markdown]
# # 04 · Prompts
#
# **Question:** How do learned words and the video itself reshape class embeddings?
#
# **You will be able to:**
#
# - say what the frozen text tower receives, position by position, and why most positions can be cut
# - learn words from weak labels, and tell what they gained from what they did not
# - build the audio-visual prompt equation by equation
# - measure how much of a video its class embeddings really hold
# - name where the released code leaves the paper's prompt, and what each departure changes
#
# **Prerequisites:** [01](01_encoders.ipynb) (cosines, prompts, the text tower),
# [02](02_temporal_mil.ipynb) (Top-K, confidence); [03](03_adaptive_fusion.ipynb) (the fused
# features $x_{av}$) is only called
#
# **Minutes:** 2 on two idle CPU cores; 25 to teach
#
# **Reads:** the text tower that ships, the feature store (Soundstage unless you say otherwise), a
# committed file of results over ten seeds
#
# **Writes:** trained detectors to the cache, numbers to `metrics.json`

# %% tags=["parameters"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
form: str = "paper"  # of everything but the audio-visual prompt: paper or released
scale: str = "soundstage"  # how large: soundstage or xd
seed: int = 0  # of the trained detectors and of random inputs
seeds: list[int] = [0, 1, 2]  # of the learned words of section 3
epochs: int = 15  # passes over the training videos, detectors
passes: int = 8  # passes over the training videos, learned words of section 3
device: str = "auto"  # where to train: auto, cpu, cuda

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.testing import assert_close

from avadclip_lite import losses
from avadclip_lite.config import make_config
from avadclip_lite.dataset import TrainingSet
from avadclip_lite.encoders import load_text
from avadclip_lite.evaluate import average_precision, evaluate, predict_store, snippet_truth
from avadclip_lite.experiments import study
from avadclip_lite.experiments.cache import train_or_load
from avadclip_lite.experiments.metrics import record
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.prompts import AudioVisualPrompt, TextualPrompt, alignment_map, global_vector
from avadclip_lite.viz import plots
from avadclip_lite.viz.lesson import examples, open_stage

plots.use_style()
check_parameters(globals())  # plain papermill hands lists over as text
store = open_stage(data)
running = examples(store)  # the rows of the three videos that go through all notebooks
class_words = store.classes.words
tower, prompts = load_text(store.encoder, class_words, dim=store.dim)
dataset = store.path.name if data else "Soundstage"
usual = not data and form == "paper" and epochs == 15  # the run whose results are asserted
BEFORE = AFTER = 10  # learned vectors before and after the class word

# %% [markdown]
# ## 1. What the text tower receives
#
# The detector knows its classes by vectors: one **class embedding** for each, in the space of
# pictures and sounds. Notebook 01 made them from words that somebody wrote, and saw that the choice
# of words mattered more than it should. Nobody knows in advance which phrase is best for "riot".
#
# So let training choose. A prompt becomes numbers at the tower's door: each token is looked up in
# a table. What the tower then processes are *vectors*, and nothing says that these have to come
# from the table. A **learnable textual prompt** keeps the vectors of the class word and puts
# learned ones around it, ten before and ten after: **context vectors**. They are words that no
# dictionary has. All classes share them, and the tower itself stays frozen.
#
# Here is the layout for a class word of one token and for one of two:

# %%
torch.manual_seed(seed)
textual = TextualPrompt(tower, prompts, before=BEFORE, after=AFTER)


def layout(word_tokens):
    """What stands at each position of a prompt, from the start mark to the end mark."""
    before, after = [f"v{i}" for i in range(BEFORE)], [f"w{i}" for i in range(AFTER)]
    return ["START", *before, *word_tokens, *after, "END"]


for parts in (["riot"], ["car", "accident"]):
    prompt = layout(parts)
    print(f"{len(prompt)} positions:", " ".join(prompt))

# %% [markdown]
# By hand: look up the marks and the word, and stack them with the context vectors. There is one
# subtlety. The learned table has a row for every *position*, as in the authors' code (more of
# them than any prompt here reaches), and a prompt takes the rows of the positions that are free.
# A longer word shifts what follows: position 12 is a learned vector in every class but one, where
# the second half of *car accident* stands.


# %%
def my_embed(word_ids, context):
    """(L, W): what enters the tower for one class word."""
    n = len(word_ids)
    return torch.cat(
        [
            tower.embed_tokens([prompts.start]),
            context[1 : 1 + BEFORE],
            tower.embed_tokens(word_ids),
            context[1 + BEFORE + n : 1 + BEFORE + n + AFTER],
            tower.embed_tokens([prompts.end]),
        ]
    )


with torch.no_grad():
    mine = [my_embed(ids, textual.context) for ids in prompts.ids]
    # each prompt alone, as long as it is; the feature is read at its last position, the end mark
    x_c = torch.cat([tower(x[None], torch.tensor([len(x) - 1])) for x in mine])  # (C, D)
    package = textual.embed()
    for x, together in zip(mine, package, strict=True):
        assert_close(x, together[: len(x)])
    assert_close(x_c, textual(), atol=1e-4, rtol=1e-4)
print("class words:", ", ".join(class_words))
print("enters the tower (C, L, W):", tuple(package.shape), "  comes out (C, D):", tuple(x_c.shape))
learned = textual.context.numel()
frozen = sum(p.numel() for p in tower.parameters())
print(f"context table: {len(textual.context)} rows of {tower.width}, {learned:,} numbers")
print(f"the frozen tower around it: {frozen:,}")

# %% [markdown]
# ### Which positions matter?
#
# Ask the gradient. The tower has room for more positions than a prompt needs, so fill *all* of
# them, the ones behind the end mark with noise, and differentiate the class embedding with respect
# to the vector at each position. (The learned vectors are freshly drawn here.) In the figure a
# class is a row and a position is a column; the number is how strongly the class embedding reacts
# to that position, as a share of the row. Where does each row end?

# %%
generator = torch.Generator().manual_seed(seed)
L = min(32, tower.positions)
noise = 0.1 * torch.randn(len(class_words), L - package.shape[1], tower.width, generator=generator)
x = torch.cat([package, noise], dim=1).requires_grad_()
ends = torch.tensor([len(one) - 1 for one in mine])
reaction = torch.zeros(x.shape[:2])
features = tower(x, ends)
for _ in range(32):  # random directions in place of all D outputs
    direction = torch.randn(features.shape, generator=generator)
    (gradient,) = torch.autograd.grad((features * direction).sum(), x, retain_graph=True)
    reaction += gradient.square().sum(dim=-1) / 32
reaction = reaction.sqrt()

beyond = torch.arange(L) > ends[:, None]
assert not reaction[beyond].any(), "a position behind the end mark reaches the class embedding"
share = (reaction / reaction.sum(dim=1, keepdim=True)).detach().numpy()
fig, ax = plt.subplots(figsize=(plots.WIDTH, 2.6))
sns.heatmap(np.where(beyond, np.nan, share), cmap="Blues", vmin=0, yticklabels=class_words, ax=ax)
ax.set_facecolor("#eeeeee")
ax.set(xlabel="position", title="How strongly each class embedding reacts to a position (share)")
ax.tick_params(axis="x", rotation=0)
plt.show()

short = [c for c, ids in enumerate(prompts.ids) if len(ids) == 1]
kinds = {
    "start mark": [0],
    "ten learned vectors before": range(1, 1 + BEFORE),
    "the class word": [1 + BEFORE],
    "ten learned vectors after": range(2 + BEFORE, 2 + BEFORE + AFTER),
    "end mark": [2 + BEFORE + AFTER],
    "behind the end": range(3 + BEFORE + AFTER, L),
}
for kind, places in kinds.items():
    print(f"{kind:27} {share[short][:, list(places)].sum(axis=1).mean():5.0%}")

# %% [markdown]
# Grey is exactly zero: attention is causal (01), the feature is read at the end mark, and nothing
# behind it can reach it. No position matters more than the class word where it is a single token.
# Each learned vector has a small part, and all twenty together have about two thirds.
#
# The opposite check: throw the positions behind the end away, and see whether anything changes.
# Then throw away one vector before it.

# %%
with torch.no_grad():
    filled = tower(x, ends)
    cut = tower(x[:, : int(ends.max()) + 1], ends)
    touched = x.clone()
    touched[:, 1] = 0.0
    touched = tower(touched, ends)


def change(a, b):
    return ((a - b).norm(dim=1) / b.norm(dim=1)).max()


print(f"without what stands behind the end: changed by {change(cut, filled):.3f} of the length")
print(f"first learned vector set to zero:   changed by {change(touched, filled):.3f}")
assert_close(cut, filled, atol=1e-4, rtol=1e-4)
assert change(touched, filled) > 0.001

# %% [markdown]
# CLIP's tower has 77 positions, and the released code computes all of them in every training step;
# our prompts need a third of that.
#
# ## 2. A detector to look into
#
# From here on we need one that is trained. The notebook uses three, alike in everything but the
# audio-visual prompt: the paper's, none, and the released code's. This is the first.


# %%
def settings_of(**changes):
    choices = dict(av_prompt="softmax", global_weight="confidence", prompt_skip="class", seed=seed)
    choices |= changes
    return make_config(
        form=form,
        scale=scale,
        dim=store.dim,
        epochs=epochs,
        device=device,
        selection="holdout",
        reload_best=False,
        **choices,
    )


result = train_or_load(settings_of(), store, progress=False)
teacher = result.model.cpu()
test = store.indices("test")
lengths = store.snippets[test]
positive, negative = snippet_truth(store.frame_truth(test), lengths, store.stride)
anomalous_video = store.labels(test)[:, 0] == 0
print(f"{len(test)} test videos, {anomalous_video.sum()} of them anomalous")

# %% [markdown]
# ## 3. Words learned from weak labels
#
# What can learned words do *alone*? Take everything else away: no video encoder, no audio, no
# temporal context. The frozen features of the pictures meet the class embeddings as in 01, and the
# only numbers that learn are the context vectors.
#
# The loss is the alignment branch's. In one sentence (05 takes it apart): each class is scored by
# the mean of its own K highest cosines in the video, a softmax over classes makes a prediction of
# it, and cross-entropy compares that with the video's label. Nobody says *when* anything happens.


# %%
TEMPERATURE = 0.07
bags = TrainingSet(store, store.indices("train"), settings_of())
pictures = torch.cat([torch.from_numpy(np.array(store.video(i), np.float32)) for i in test])
videos = pad_sequence(pictures.split(lengths.tolist()), batch_first=True)  # (V, T, D)
labels = torch.from_numpy(store.labels(test))
flags = [store.flags(i) for i in test]
broken = np.concatenate(
    [one.get("corrupted_video", np.zeros(n, bool)) for one, n in zip(flags, lengths, strict=True)]
)


def learn_words(s):
    """Context vectors learned from the labels of the training videos; returns x_c (C, D)."""
    torch.manual_seed(s)
    words = TextualPrompt(tower, prompts, before=BEFORE, after=AFTER)
    optimiser = torch.optim.AdamW([words.context], lr=1e-3)
    for _ in range(passes):
        for index in torch.randperm(len(bags)).split(32):
            batch = bags.batch(index)
            m = alignment_map(batch.video, words().expand(len(index), -1, -1), TEMPERATURE)
            loss = losses.mil_align(m, batch.labels, batch.lengths).cross_entropy
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        return words()


def measure(x_c):
    """What class embeddings are worth on the test pictures: as asked, and as wanted."""
    m = alignment_map(videos, x_c.expand(len(videos), -1, -1), TEMPERATURE)
    of_video = losses.topk_mean(m, torch.from_numpy(lengths)).softmax(dim=1)
    valid = torch.arange(m.shape[1]) < torch.from_numpy(lengths)[:, None]
    score = 1 - m.softmax(dim=-1)[valid][:, 0].numpy()
    asked = losses.mil_align(m, labels, torch.from_numpy(lengths)).cross_entropy
    intact = ~broken
    return {
        "cross-entropy of the video's label": asked.item(),
        "AP of whole videos, %": 100 * average_precision_score(anomalous_video, 1 - of_video[:, 0]),
        "AP of frames, %": 100 * average_precision(score, positive, negative),
        "AP of frames, broken left out, %": 100
        * average_precision(score[intact], positive[intact], negative[intact]),
    }


with torch.no_grad():
    bare = TextualPrompt(tower, prompts, before=0, after=0)()  # START word END
measured = measure(bare)
for name, value in measured.items():
    print(f"{name:36} {value:5.1f}" if "%" in name else f"{name:36} {value:5.2f}")

# %% [markdown]
# Those are the bare words, without training. The first two rows are about whole videos, which is
# what the loss asks for. The last two are about moments, which is what we want; the very last
# leaves out the snippets whose picture is broken (black or static, as 01 found). Now the learned
# words.

# %% tags=["nbval-ignore-output"]
alone = {s: learn_words(s) for s in seeds}
runs = pd.DataFrame([measure(x_c) for x_c in alone.values()])
table = pd.DataFrame({"bare words": measured, "learned words": runs.mean()})
table["± between seeds"] = runs.std() if len(seeds) > 1 else np.nan
print(table.to_string(float_format="{:.2f}".format))


def closeness(x_c):
    """Highest cosine to any class, by what is in the snippet."""
    best = (F.normalize(pictures, dim=1) @ F.normalize(x_c, dim=1).T).max(dim=1).values.numpy()
    shown = np.concatenate(
        [one.get("visible", np.ones(n, bool)) for one, n in zip(flags, lengths, strict=True)]
    )
    groups = {
        "events that are seen": (negative == 0) & shown & ~broken,
        "normal snippets": (positive == 0) & ~broken,
        "broken pictures": broken,
    }
    return {name: best[group].mean() for name, group in groups.items() if group.any()}


print("\nmean cosine to the closest class word")
closest = {"bare words": closeness(bare), f"learned, seed {seeds[0]}": closeness(alone[seeds[0]])}
print(pd.DataFrame(closest).to_string(float_format="{:.2f}".format))
RECORDED = {  # the measure's word and its unit
    "cross-entropy of the video's label": lambda value: ("loss", value),
    "AP of whole videos, %": lambda value: ("video_ap", value / 100),
    "AP of frames, %": lambda value: ("frame_ap", value / 100),
    "AP of frames, broken left out, %": lambda value: ("frame_ap", value / 100),
}
for name in table.index:
    for s, value in zip(seeds, runs[name], strict=True):
        record(
            *RECORDED[name](value),
            dataset=dataset,
            detector="learned words alone, pictures",
            split="test",
            seed=s,
            protocol="broken pictures left out" if "broken" in name else "",
        )
if usual:
    assert (runs.iloc[:, 0] < measured["cross-entropy of the video's label"] - 0.05).all()
    assert (runs["AP of whole videos, %"] > measured["AP of whole videos, %"]).all()
    assert (runs["AP of frames, %"] < measured["AP of frames, %"] - 4).all()

# %% [markdown]
# The words learned what they were asked. Both video rows are better, on videos that they have never
# seen. And the frames are *worse*, by a lot.
#
# The second table tells why. Learning moved the words away from everything but visible events, and
# that is what pays: a normal video is right as soon as its K best snippets for *normal* are closer
# to that word than its K best for any other class are to theirs. These are cosines of *different*
# snippets. What a broken picture should be called does not enter, because it is close to no word at
# all. But a frame's score is a softmax *within* one snippet, and among seven small cosines somebody
# is always largest. Leave broken pictures out, and little is lost.
#
# Two lessons. Words alone cannot make up for what is missing around them: temporal context, and a
# branch that scores moments. And "the loss fell" is good news only about the question that the loss
# asks.
#
# One caution: the tiny text tower was pretrained on captions of this very world, and the class
# words occur in them. Its bare words start well on these pictures. On footage that is far from the
# captions of the web CLIP may start worse, and then there is more to gain.
#
# ### What became of the seven words?
#
# The cosines between class embeddings, before and after. On the left the bare words; in the middle
# the words that learned alone; on the right those of the trained detector, where they were one of
# many parts that learned. Compare the first row, *normal*, from left to right.

# %% tags=["nbval-ignore-output"]


def cosines(a, b):
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).mT


with torch.no_grad():
    x_c = teacher.textual_prompt()
sets = {"bare words": bare, "learned alone": alone[seeds[0]], "in the detector": x_c}
fig, axes = plt.subplots(1, 3, figsize=(plots.WIDTH, 3.4))
for ax, (name, embedding) in zip(axes, sets.items(), strict=True):
    sns.heatmap(
        cosines(embedding, embedding).numpy(),
        annot=True,
        fmt=".1f",
        cmap="Blues",
        vmin=-0.1,
        vmax=1,
        cbar=False,
        annot_kws={"fontsize": "xx-small"},
        xticklabels=class_words,
        yticklabels=class_words if ax is axes[0] else False,
        square=True,
        ax=ax,
    )
    ax.set_title(name)
    ax.tick_params(labelsize="x-small")
    plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
plt.show()
for name, embedding in sets.items():
    kept = cosines(embedding, bare).diag()
    between = cosines(embedding, embedding)[0, 1:].mean()
    print(
        f"{name:16} cosine to the bare word {kept.min():.2f} to {kept.max():.2f}, "
        f"normal to the anomalies {between:.2f} on average"
    )
moved = {name: 1 - cosines(embedding, bare).diag().mean() for name, embedding in sets.items()}
assert not usual or moved["in the detector"] < moved["learned alone"]

# %% [markdown]
# Alone, the words had to move, *normal* right up to some of the anomalies. In the detector they
# stay where they were: there the *features* can learn to come to the words, and that is what
# happens.
#
# Whether learned context then buys anything over bare words is a question for many seeds; section 6
# asks it.
#
# ## 4. The audio-visual prompt
#
# So far a class embedding is the same for every video. But riots differ: one is a dark street with
# shouting, another a sunlit square with smoke. The paper's idea is to let each video adjust the
# class words to itself. First the video is put into one vector, mostly made of the snippets that
# look anomalous; then every class takes some of it. In four equations, with confidence
# $a\;(T)$ from the classification branch, fused features $x_{av}\;(T, D)$, class embeddings
# $x_c\;(C, D)$:
#
# $$\begin{aligned}
# x_p &= \mathrm{Norm}(a^\top x_{av}) && \text{the video in one vector} && (4)\\
# s_p &= \mathrm{softmax}(x_c\,x_p^\top) && \text{the share each class takes} && (5)\\
# x_{mp} &= s_p\,x_p && \text{the imprint on each class} && (6)\\
# x_{cp} &= \mathrm{FFN}(x_{mp} + x_c) + x_c && \text{class embeddings that know the video} && (7)
# \end{aligned}$$
#
# By pencil: three snippets of two numbers, two classes. Something bangs in the second snippet, and
# the classification branch noticed. The feed-forward network is replaced by one that passes its
# input through.

# %%
x_av = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])  # (T, D)
a = torch.tensor([0.1, 0.9, 0.1])  # (T,)


def small_prompt(length):
    """Equations 4 to 7 for two classes whose embeddings have this length."""
    x_c = length * torch.eye(2)  # (C, D): normal, bang
    x_p = F.normalize(a @ x_av, dim=0)  # (4)
    s_p = F.cosine_similarity(x_c, x_p[None]).softmax(dim=0)  # (5)
    x_mp = s_p[:, None] * x_p  # (6)
    x_cp = (x_mp + x_c) + x_c  # (7)
    turned = torch.rad2deg(torch.acos(F.cosine_similarity(x_cp, x_c)))
    return x_p, s_p, turned


for length in (1.0, 10.0):
    x_p, s_p, turned = small_prompt(length)
    print(
        f"class embeddings of length {length:2.0f}: x_p {x_p.numpy().round(2)}, "
        f"s_p {s_p.numpy().round(2)}, turned by {turned.numpy().round(1)} degrees"
    )

# %% [markdown]
# The global vector lies close to the second snippet, the one that bangs, though two of three
# snippets are quiet. The shares are nearly equal, because a softmax of two numbers between -1 and
# 1 is nearly flat. And notice the second line: the same video turns long class embeddings a tenth
# as far as short ones. Keep both in mind.
#
# Now the same lines on real features: a batch of test videos through the trained detector.
# (Equation 5 does not say whether $x_c$ is normalised; this package takes cosines, at a temperature
# of one. Section 5 asks what follows from that.)


# %%
def my_alignment(x_av, a, x_c, ffn, temperature=1.0):
    """Equations 4 to 7 and the alignment map: (B, T, D), (B, T), (C, D) -> every step."""
    x_p = (a[..., None] * x_av).sum(dim=1)  # (B, D)
    x_p = x_p / x_p.norm(dim=1, keepdim=True)  # (4)
    cosine = x_p @ (x_c / x_c.norm(dim=1, keepdim=True)).T  # (B, C)
    s_p = (cosine / temperature).exp()
    s_p = s_p / s_p.sum(dim=1, keepdim=True)  # (5)
    x_mp = s_p[..., None] * x_p[:, None]  # (B, C, D), (6)
    x_cp = ffn(x_mp + x_c) + x_c  # (7)
    m = cosines(x_av, x_cp) / TEMPERATURE  # (B, T, C)
    return x_p, s_p, x_cp, m


test_bags = TrainingSet(store, test, settings_of())
batch = test_bags.batch(torch.arange(16))
with torch.no_grad():
    output = teacher(batch)
    x_av, a, x_c = output.features, output.confidence * output.mask, output.class_embeddings
    x_p, s_p, x_cp, m = my_alignment(x_av, a, x_c, teacher.av_prompt.ffn)

    package = AudioVisualPrompt(store.dim)
    package.load_state_dict(teacher.av_prompt.state_dict())
    assert_close(global_vector(x_av, a), x_p)
    assert_close(package.similarity(x_c, x_p), s_p)
    assert_close(package(x_c, x_p), x_cp, atol=1e-4, rtol=1e-4)
    assert_close(alignment_map(x_av, x_cp, TEMPERATURE), m, atol=1e-3, rtol=1e-3)
    if form == "paper":
        assert_close(output.prompted_embeddings, x_cp, atol=1e-3, rtol=1e-3)
        assert_close(output.alignment_logits[output.mask], m[output.mask], atol=1e-2, rtol=1e-3)
for name, value in {"x_p": x_p, "s_p": s_p, "x_cp": x_cp, "m": m}.items():
    print(f"{name:5} {tuple(value.shape)}")

# %% [markdown]
# ## 5. How much of the video is in it?
#
# The equations are clear. Whether they *do* anything is another question, and it can be measured.
# First the shares. Equation 5 is a softmax over seven classes of seven cosines. How unequal are
# they? We put every test video into its vector and look at the share of the class that takes most;
# at the **effective number of classes**, $e^{H}$ with $H$ the entropy of the shares (7 if all are
# equal, 1 if one class takes everything); and whether the class that takes most is one of the
# video's. And since a temperature is ours to choose, we try colder ones.


# %%
@torch.no_grad()
def survey(detector):
    """Global vectors of all test videos, weighted by confidences and by raw logits, (V, D) each."""
    found = {"confidence": [], "logit": []}
    for index in torch.arange(len(test_bags)).split(32):
        batch = test_bags.batch(index)
        output = detector(batch)
        for name, weights in (
            ("confidence", output.confidence),
            ("logit", output.anomaly_logits),
        ):
            found[name].append(global_vector(output.features, weights * output.mask))
    return {name: torch.cat(parts) for name, parts in found.items()}


def effective(shares):
    """e to the entropy of shares (V, C): how many classes they are spread over."""
    return torch.special.entr(shares).sum(dim=1).exp()


toy_shares = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.97, 0.01, 0.01, 0.01]])
print("effective number of classes:", effective(toy_shares).numpy().round(2))

# %% [markdown]
# Watch the first row of the table: it is the one that the detector was trained with.

# %% tags=["nbval-ignore-output"]
vectors = survey(teacher)
with torch.no_grad():
    x_c = teacher.textual_prompt()
cosine = cosines(vectors["confidence"], x_c)  # (V, C)
true_class = torch.from_numpy(store.labels(test)) > 0


def shares_at(temperature):
    return (cosine / temperature).softmax(dim=1)


rows = {}
for temperature in (1.0, 0.3, 0.1, 0.07, 0.03, 0.01):
    shares = shares_at(temperature)
    rows[f"temperature {temperature:g}"] = {
        "largest share, %": 100 * shares.max(dim=1).values.mean().item(),
        "effective classes": effective(shares).mean().item(),
    }
print(pd.DataFrame(rows).T.to_string(float_format="{:.2f}".format))
print(f"\na share of equal parts: {100 / len(class_words):.1f} %")
spread = (cosine.max(dim=1).values - cosine.min(dim=1).values).mean()
print(f"cosines of one video to the classes: {spread:.2f} between highest and lowest, on average")
right = true_class.gather(1, cosine.argmax(dim=1, keepdim=True)).float().mean()
print(f"the class that takes most is one of the video's: {right:.0%} of the videos")
raw = (vectors["confidence"] @ x_c.T).softmax(dim=1)
print(
    f"the dot product with x_c as it is, of length {x_c.norm(dim=1).mean():.1f}: "
    f"{effective(raw).mean():.2f} effective classes"
)
assert not usual or (effective(shares_at(1.0)).mean() > 6.5 and right > 0.6)

# %% [markdown]
# Here are the three videos that we follow through all notebooks, each at two temperatures. Their
# true classes are printed below. Can you tell from the upper row of a pair what happens?

# %% tags=["nbval-ignore-output"]
place = {role: int(np.flatnonzero(test == row)[0]) for role, row in running.items()}
pairs = [(role, temperature) for role in place for temperature in (1.0, 0.1)]
plots.heatmap(
    np.stack([shares_at(temperature)[place[role]].numpy() for role, temperature in pairs]),
    rows=[f"{role}, {temperature:g}" for role, temperature in pairs],
    columns=class_words,
    vmax=0.8,
    title="Share of the global vector that each class takes",
)
plt.show()
for role, v in place.items():
    true = [word for word, on in zip(class_words, true_class[v], strict=True) if on]
    most = class_words[int(cosine[v].argmax())]
    print(f"{role:12} most goes to {most}; truly {', '.join(true)}")

# %% [markdown]
# The choice itself is good: the class that takes most is usually right. But it hardly takes more
# than the others. Seven cosines that lie so close together cannot do better at a temperature of
# one; to *pick*, the softmax needs a temperature of a tenth or less.
#
# The paper gives no temperature, and equation 5 read to the letter has no normalisation of $x_c$
# either. The last line reads it so: the dot product with a class embedding of length ten is a
# cosine at a temperature of a tenth. One missing word in a paper, a factor of ten. (Section 6 has a
# row for the sharper softmax.)
#
# ### How loud is it?
#
# The toy of section 4 gave a second hint. A share of a *unit* vector is added to a class embedding,
# and the class embedding is whatever the text tower gives. So compare lengths; and then take the
# class embeddings that are finally used and see how much they differ between videos.

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    x_p = vectors["confidence"]
    s_p = teacher.av_prompt.similarity(x_c, x_p)
    x_mp = s_p[..., None] * x_p[:, None]
    x_cp = teacher.av_prompt(x_c, x_p)  # (V, C, D)
print(f"length of x_c  {x_c.norm(dim=-1).mean():6.2f}")
print(f"length of x_mp {x_mp.norm(dim=-1).mean():6.2f}")


def degrees(cosine):
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


each = x_cp.double().transpose(0, 1)  # (C, V, D)
furthest = degrees(cosines(each, each).flatten(1).min(dim=1).values)
moved = degrees(cosines(each.mean(dim=1), x_c.double()).diag())
print(f"angle between x_cp of one class in any two videos: at most {furthest.max():.1f} degrees")
print(f"angle between x_cp and x_c: {moved.min():.0f} to {moved.max():.0f} degrees")
assert not usual or furthest.max() < 3 < moved.min()

# %% [markdown]
# Here is the surprise of this notebook. The class embeddings "that know the video" are practically
# the same for every video. The imprint is there, and it even leans the right way, but it is a
# whisper: compare its length with that of what it is added to.
#
# The module does turn the class embeddings, as the last line shows. But it turns them alike for all
# videos: what it comes down to is a feed-forward network on the seven class words.
#
# If that is so, then it must make no difference *whose* imprint a video gets. That is a test which
# can fail. We give each video its own global vector, then another video's, then its own turned
# around, then none; and last we take the module out altogether.


# %% tags=["nbval-ignore-output"]
class Changed(nn.Module):
    """An audio-visual prompt that is handed another global vector."""

    def __init__(self, prompt, change):
        super().__init__()
        self.prompt, self.change = prompt, change

    def forward(self, x_c, x_p):
        return self.prompt(x_c, self.change(x_p))


CHANGES = {
    "its own": lambda x_p: x_p,
    "another video's": lambda x_p: x_p.roll(1, dims=0),
    "its own, turned around": lambda x_p: -x_p,
    "none": torch.zeros_like,
}


def swapped(detector):
    """Frame AP (%), alignment branch, by the global vector that each video is given."""
    found, own = {}, detector.av_prompt
    try:
        for name, change in CHANGES.items():
            detector.av_prompt = Changed(own, change)
            score = predict_store(detector, store, test).alignment_anomaly
            found[name] = 100 * average_precision(score, positive, negative)
        detector.av_prompt = None
        score = predict_store(detector, store, test).alignment_anomaly
        found["(module taken out)"] = 100 * average_precision(score, positive, negative)
    finally:
        detector.av_prompt = own
    return found


whose = swapped(teacher)
for name, ap in whose.items():
    print(f"{name:24} {ap:.2f} %")
if usual:
    assert max(abs(whose[name] - whose["its own"]) for name in CHANGES) < 0.5

# %% [markdown]
# Whose imprint it is does not matter. What this detector's audio-visual prompt gives is not
# audio-visual. Please read that with its limits: it is *this* reading of the equations, on this
# text tower, on synthetic data. How long the class embeddings are is a property of the tower (these
# lines print it for whatever store and encoder you give the notebook), and nothing in the equations
# looks at it.
#
# ## 6. The audit: what the released code computes
#
# The authors' code departs from the equations in three places. Here is its computation in our
# letters. (The third place is where the skip connection starts. With an imprint as quiet as this
# one it makes next to no difference, and we only name it.)


# %%
def released(x_av, logits, x_c, ffn):
    """The release's weights (B, C, C) and class embeddings (B, C, D)."""
    g = (logits[..., None] * x_av).sum(dim=1)  # raw logits, not confidences
    g = g / g.norm(dim=-1, keepdim=True)  # (B, D)
    copies = g[:, None].expand(-1, len(x_c), -1)  # (B, C, D): the same vector for each class
    weights = (x_c @ copies.mT).softmax(dim=-1)  # (B, C, C): over the copies
    u = x_c + weights @ copies
    return weights, u + ffn(u)  # skip from u, not from x_c


with torch.no_grad():
    logits = output.anomaly_logits * output.mask
    weights, theirs = released(
        output.features, logits, output.class_embeddings, teacher.av_prompt.ffn
    )
    package = AudioVisualPrompt(store.dim, weights="uniform", skip="sum")
    package.load_state_dict(teacher.av_prompt.state_dict())
    ours = package(output.class_embeddings, global_vector(output.features, logits))
    assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
print("weights (B, C, C):", tuple(weights.shape))
print(weights[0, :3].numpy().round(4))
assert (weights - 1 / len(class_words)).abs().max() < 1e-6

# %% [markdown]
# **First: it cannot choose.** Before the softmax the release copies the global vector once for each
# class, and then takes the softmax over the *copies*. Seven equal numbers always give seven times
# one seventh, whatever the video and whatever the class. The seven copies, a seventh each, add up
# to the whole vector. So every class gets the same imprint; in our configuration this is
# `av_prompt="uniform"`. Such weights cannot learn either: they do not depend on anything.

# %%
probe = output.class_embeddings.detach().clone().requires_grad_()
weights, _ = released(output.features.detach(), logits, probe, teacher.av_prompt.ffn)
(gradient,) = torch.autograd.grad(weights[:, :, 0].sum(), probe)
print(f"gradient of the weights with respect to the class embeddings: {gradient.abs().max():.4f}")
assert gradient.abs().max() < 1e-6

# %% [markdown]
# Does an equal imprint do anything at all? Picture the simplest case: no feed-forward network, no
# normalisation. A snippet $f$ scores class $c$ by $f\cdot(x_c + g) = f\cdot x_c + f\cdot g$. The
# second term is the same for all classes, and a softmax does not see it. An equal imprint works
# only through what is *not* simple: the length of the class embeddings and the bends of the
# network. (In one thing it is ahead of the paper's: it is seven times as loud.)
#
# **Second: the sign.** The release weighs snippets with raw logits. A confidence is never negative;
# a logit is, wherever the detector thinks *normal*. Three snippets with a common part, as features
# of one video have, and two sets of logits:

# %%
x_av = torch.tensor([[1.0, 0.2], [1.0, -0.1], [1.0, 0.1]])  # (T, D)
for what, s in {
    "calm video": torch.tensor([-3.0, -2.0, -4.0]),
    "one loud snippet": torch.tensor([-3.0, 2.0, -3.0]),
    "mostly loud": torch.tensor([-1.0, 3.0, 2.0]),
}.items():
    by_logit = F.normalize(s @ x_av, dim=0)
    by_confidence = F.normalize(torch.sigmoid(s) @ x_av, dim=0)
    print(f"{what:17} logits {s.tolist()}: cosine {by_logit @ by_confidence:5.2f}")

# %% [markdown]
# Where most logits are negative, the vector points *away* from the video: what is most typical of
# it is subtracted from the class words. Now all test videos of the trained detector. The figure
# sums the audit up so far: on the left the shares of section 5 (the bands hold the middle eight
# tenths of the videos) beside the release's; on the right the cosine between the two global
# vectors of each video. Where would you draw the line between the two groups?

# %% tags=["main-figure", "nbval-ignore-output"]
# The audio-visual prompt on all test videos. Left: shares of the seven classes, largest first; at
# the paper's temperature they are nearly as even as the release's. Right: weighing by raw logits in
# place of confidences turns the global vector around, in nearly every normal video.
fig, (left, on_right) = plt.subplots(1, 2, figsize=(plots.WIDTH, 3.3))
rank = np.arange(1, len(class_words) + 1)
for temperature, colour, dash in ((1.0, plots.MODEL, "-"), (0.1, plots.BASELINE, "--")):
    ordered = shares_at(temperature).sort(dim=1, descending=True).values.numpy()
    low, high = np.quantile(ordered, [0.1, 0.9], axis=0)
    left.fill_between(rank, low, high, color=colour, alpha=0.2, lw=0)
    label = f"temperature {temperature:g}"
    left.plot(rank, ordered.mean(axis=0), dash, color=colour, marker="o", ms=4, label=label)
left.axhline(1 / len(class_words), color="#333333", ls=":", label="released: always 1/7")
left.set(xlabel="class, by its share", ylabel="share of the global vector", ylim=(0, None))
left.set_title("Who takes how much")
left.legend(frameon=False, fontsize="small")

flip = (vectors["confidence"] * vectors["logit"]).sum(dim=1).numpy()  # both are unit vectors
edges = np.linspace(-1, 1, 31)
for name, group, colour in (
    ("normal videos", ~anomalous_video, "#8C8C8C"),
    ("anomalous videos", anomalous_video, plots.TRUTH),
):
    counts, _ = np.histogram(flip[group], edges)
    on_right.stairs(counts / group.sum(), edges, fill=True, color=colour, alpha=0.3)
    on_right.stairs(counts / group.sum(), edges, color=colour, lw=1.8, label=name)
on_right.set(xlabel="cosine, by logits against by confidences", ylabel="share of the videos")
on_right.set_xticks([-1, -0.5, 0, 0.5, 1])
on_right.set_title("Which way the global vector points")
on_right.legend(frameon=False, fontsize="small", loc="upper center")
plt.show()
for name, group in (("normal videos", ~anomalous_video), ("anomalous videos", anomalous_video)):
    print(
        f"{name:17} turned around in {(flip[group] < 0).mean():4.0%}, "
        f"median cosine {np.median(flip[group]):5.2f}"
    )
print(
    f"AUC of this cosine as an answer to 'anomalous?': {roc_auc_score(anomalous_video, flip):.2f}"
)
for role, v in place.items():
    print(f"{role:12} cosine {flip[v]:5.2f}")
if usual:
    assert (flip[~anomalous_video] < 0).mean() > 0.8 > (flip[anomalous_video] < 0).mean()

# %% [markdown]
# Nearly every normal video is turned around, and most anomalous ones are not; a line far to the
# left parts the two groups, and the AUC above says how well. So the flip is no noise. It says in
# one bit whether the classification branch finds the video normal: a judgement that confidences
# lose, because equation 4 normalises how large they are away. An honest audit notes that too.
#
# ### What each departure changes in the results
#
# Everything so far looked inside one detector. Now train with each difference, one at a time. A
# single training a row would decide nothing, so a committed file holds many seeds of every row; and
# since all rows of a seed see the same videos in the same order, they can be compared seed by seed.
# (The command that makes these rows: `python -m avadclip_lite study prompts --seeds 10 --out
# data/studies/soundstage.csv`.) The last two rows are no departures of the release: the sharper
# softmax of section 5, and detectors whose class words are bare.

# %%
frame = study.results("prompts")
MEASURES = {
    "frame_ap_classification": "AP, classification",
    "frame_ap_alignment": "AP, alignment",
    "map_anomaly": "mean mAP, six classes",
}
table = study.table(frame, list(MEASURES)).rename(columns=MEASURES)
source = dataset if (frame["store"] == store.digest).all() else "Soundstage"
print(f"{source.replace('Soundstage', 'Soundstage (synthetic)')}, test split, percent\n")
print(table.to_string())

# %% [markdown]
# And each row against the paper's form: the mean difference with its 95 % interval. A row is called
# different only if the interval leaves zero out. With this many comparisons expect one in twenty to
# do so by chance.

# %%
verdicts = {}
for measure, title in MEASURES.items():
    print(f"{title}, points, against the paper's form")
    for row in table.index[table["seeds"] > 1].drop("paper", errors="ignore"):
        pair = study.paired(frame, row, "paper", measure)
        verdicts[row, measure] = pair.verdict
        print(
            f"    {row:28} {pair.mean:+5.1f} [{pair.low:+5.1f}, {pair.high:+5.1f}]  {pair.verdict}"
        )
different = sum(verdict != "not distinguishable" for verdict in verdicts.values())
chance = len(verdicts) / 20
print(f"{different} of {len(verdicts)} comparisons leave zero out; chance alone: {chance:.0f}")

# %% [markdown]
# Look at the widths before the verdicts. Where an interval holds zero, these seeds cannot tell the
# two apart, and that is all they say. They do not say that the release's departures are harmless
# elsewhere; on Soundstage they had little to spoil. Two intervals leave zero out. *Raw logits* are
# a little ahead in the alignment branch's AP. It would fit the judgement that they pass on; but all
# three departures together, raw logits among them, are not ahead, and among so many comparisons one
# or two will stray. The other is more interesting: *without* the module the mean mAP is higher. It
# speaks neither for nor against the audio-visual idea, for what this row lacks is the feed-forward
# network on the class words, which turned them alike for all videos. (08 asks the same of a
# detector without the focal loss, and there, too, the prompt costs mAP.) Naming events on
# Soundstage, the class words do rather better as they come from the tower. And the last row answers
# section 3: bare words are not distinguishable from words with learned context. In the detector
# these seeds cannot see what learned context buys.
#
# The paper reports a clear gain in AP from its prompt on XD-Violence (Table 4), which does not show
# here. What this notebook adds is a way to ask what such a gain is made of: train without the
# module, and swap the videos' vectors.
#
# Do not take a file's word for it. Three of its rows are trained here, for one seed:

# %% tags=["nbval-ignore-output"]
VARIANTS = {
    "paper": {},
    "no audio-visual prompt": dict(av_prompt="none"),
    "all three, as released": dict(av_prompt="uniform", global_weight="logit", prompt_skip="sum"),
}
detectors, rows = {}, {}
for name, changes in VARIANTS.items():
    settings = settings_of(**changes)
    detectors[name] = train_or_load(settings, store, progress=False).model.cpu()
    metrics = evaluate(detectors[name], store).metrics
    rows[name] = {title: 100 * metrics[measure] for measure, title in MEASURES.items()}
    for measure in MEASURES:
        about = dict(dataset=dataset, detector=f"prompt: {name}", split="test", seed=seed)
        branch = "alignment" if measure == "map_anomaly" else None
        record(measure, metrics[measure], **about, branch=branch, config=settings)
    kept = frame[(frame["row"] == name) & (frame["seed"] == seed)]
    if usual and len(kept):
        rows[name]["AP, alignment, in the file"] = 100 * kept["frame_ap_alignment"].item()
        apart = abs(rows[name]["AP, alignment"] - rows[name]["AP, alignment, in the file"])
        assert apart < 6, f"{name}: {apart:.1f} points from the file"
print(f"trained here, seed {seed}, percent\n")
print(pd.DataFrame(rows).T.to_string(float_format="{:.1f}".format))

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 1
#
# *5 minutes, easy.* How many positions must be computed for a set of classes? Write it for any
# token ids and any number of context vectors. The check then asks what long
# class names would need.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def positions_needed(ids, before, after):
    """Positions of the longest prompt, marks included; ``ids`` holds the token ids of each word."""
    # BEGIN SOLUTION
    # Stumbles: forgetting one of the two marks, or adding up all words where the longest decides.
    return 1 + before + max(len(word) for word in ids) + after + 1
    # END SOLUTION


# %% tags=["check"]
assert positions_needed([(5,), (6, 7)], 0, 0) == 4, "start, two tokens, end"
assert positions_needed(prompts.ids, BEFORE, AFTER) == textual.embed().shape[1]
for n in (1, 2, 5, 20):
    print(
        f"longest class name {n:2} tokens: {positions_needed([range(n)], BEFORE, AFTER)} positions"
    )
print("Exercise 1 is solved.")

# %% [markdown]
# ### Exercise 2
#
# *10 minutes, medium.* Find the temperature at which the softmax of equation 5 spreads over a
# wanted number of effective classes, on average over videos. The number grows with the temperature,
# so halve an interval again and again: start between 0.001 and 10, forty steps, and take the
# geometric mean of the ends as the middle.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def temperature_for(cosine, wanted):
    """The temperature at which ``softmax(cosine / t)`` (V, C) has ``wanted`` effective classes."""
    # BEGIN SOLUTION
    # Stumbles: the direction (colder means fewer classes), and the mean over videos, which is of
    # the effective numbers and not of the shares.
    low, high = 0.001, 10.0
    for _ in range(40):
        middle = (low * high) ** 0.5
        if effective((cosine / middle).softmax(dim=1)).mean() < wanted:
            low = middle
        else:
            high = middle
    return middle
    # END SOLUTION


# %% tags=["check", "nbval-ignore-output"]
two = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
found = temperature_for(two, 3.0)
assert abs(effective((two / found).softmax(dim=1)).item() - 3.0) < 0.01, "not 3 effective classes"
for wanted in (6.0, 4.0, 2.0, 1.5):
    found = temperature_for(cosine, wanted)
    print(f"{wanted:.1f} effective classes at a temperature of {found:.2f}")
print("Exercise 2 is solved.")

# %% [markdown]
# ### Exercise 3
#
# *10 minutes, medium.* "Practically the same for every video" deserves one number. For each
# class take the unit vectors of its $x_{cp}$ over all videos. The squared length of their *mean* is
# 1 if they all agree; one minus it is the share of the class embedding that belongs to the single
# video. The check asks all detectors of this notebook.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def share_of_the_video(x_cp):
    """(C,) of class embeddings (V, C, D): what part of each varies from video to video."""
    # BEGIN SOLUTION
    # Stumbles: which axis holds the videos, and normalising before the mean rather than after.
    return 1 - F.normalize(x_cp, dim=-1).mean(dim=0).square().sum(dim=-1)
    # END SOLUTION


# %% tags=["check", "nbval-ignore-output"]
agreeing, opposed = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]]]), torch.tensor([[[1.0]], [[-3.0]]])
assert_close(share_of_the_video(agreeing), torch.zeros(1), msg="equal directions: no share")
assert_close(share_of_the_video(opposed), torch.ones(1), msg="opposite directions: all of it")
for name, detector in detectors.items():
    if detector.av_prompt is None:
        continue
    which = detector.settings.model.global_weight
    with torch.no_grad():
        embeddings = detector.av_prompt(detector.textual_prompt(), survey(detector)[which])
    print(f"{name:24} {100 * share_of_the_video(embeddings).mean():.2f} %")
print("Exercise 3 is solved.")

# %% [markdown]
# ## Recap
#
# - say what the frozen text tower receives, position by position, and why most positions can be
#   cut: a start mark, learned vectors, the class word, learned vectors, an end mark; attention is
#   causal and the feature is read at the end mark, so nothing behind it counts, and two thirds of
#   CLIP's 77 positions need not be computed.
# - learn words from weak labels, and tell what they gained from what they did not: alone they fit
#   the labels of unseen videos better and score their frames worse, because the loss compares the
#   best snippets of a video and never asks about the others; in the detector they hardly move.
# - build the audio-visual prompt equation by equation: a global vector weighted by confidence, a
#   softmax over classes, a share of the vector for each class, a feed-forward network with a skip.
# - measure how much of a video its class embeddings really hold: next to nothing at a temperature
#   of one and beside class embeddings of length ten; give a video another's global vector and
#   nothing happens.
# - name where the released code leaves the paper's prompt, and what each departure changes: a
#   softmax over equal copies cannot choose, raw logits turn the vector of normal videos around;
#   over ten seeds on Soundstage the results change by little that
#   noise could not explain; the exception is the module left out altogether, with which the mean
#   mAP rises.
#
# The class embeddings are ready. Notebook [05](05_mil_align.ipynb) lays them against every
# snippet and asks how the alignment map names and localises an event.
