# %% [markdown] tags=["core"]
# # 07 · When the microphone is gone
#
# **Question:** What does an uncertain student learn from a teacher that hears, and is it the
# teaching?
#
# **You will be able to:**
#
# - say which term of the distillation loss forbids small sigmas, and which large ones
# - derive that loss, and show from whom it takes weight away
# - put a student beside its teacher and see what it follows and what it cannot
# - test what a predicted sigma knows
# - make a placebo, and show before any training that it is one
# - say for both students what distillation buys, and against what
#
# **Prerequisites:** [06](06_teacher.ipynb) (the teacher), [02](02_temporal_mil.ipynb) (the video
# encoder); Gaussian density, logarithm, derivative
#
# **Minutes:** 25 to read, 17 hands-on; 2 on two CPU cores
#
# **Reads:** the feature store (Soundstage unless you say otherwise), the teacher and the student
# that ship, the study's results
#
# **Writes:** one trained student to the cache, numbers to `metrics.json`

# %% tags=["parameters", "core"]
data: str = ""  # folder of a feature store; empty is Soundstage, which ships
form: str = "paper"  # what is computed: paper or released
scale: str = "soundstage"  # how large: soundstage or xd
seed: int = 0  # of fresh weights, and of the detectors where none ship
epochs: int = 15  # passes over the training videos, where none ship
device: str = "auto"  # where to train: auto, cpu, cuda

# %% tags=["setup", "core"]
import copy
from dataclasses import replace
from inspect import getsource

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from avadclip_lite import losses
from avadclip_lite.config import find_device, make_config
from avadclip_lite.dataset import TrainingSet
from avadclip_lite.encoders import load_text
from avadclip_lite.evaluate import evaluate, roc_auc, snippet_truth
from avadclip_lite.experiments import study
from avadclip_lite.experiments.cache import train_or_load
from avadclip_lite.experiments.metrics import record
from avadclip_lite.experiments.parameters import check_parameters
from avadclip_lite.model import FrozenTeacher, build
from avadclip_lite.viz import plots
from avadclip_lite.viz.lesson import FPS, examples, open_stage, scoreboard, shipped

plots.use_style()
check_parameters(globals())  # plain papermill hands lists over as text
store, where = open_stage(data), find_device(device)
tower, prompts = load_text(store.encoder, store.classes.words, dim=store.dim)
running, test = examples(store), store.indices("test")
dataset = store.path.name if data else "Soundstage"

# %% [markdown] tags=["core"]
# ## 1. One number, and how sure
#
# The teacher of 06 has two senses. Cameras often have one: no microphone, a track that is missing,
# a law against recording speech. The paper's answer is **distillation**. A second detector, the
# **student**, gets pictures only and learns to imitate the features $x_{av}$ that the trained
# teacher makes of pictures *and* sound. If it succeeds, it has learned to see what it should have
# heard.
#
# Some of that is impossible. A car crashes off camera, the teacher's features jump, and the
# student's picture shows an empty street. So the student may say of each number how **unsure** it
# is, and errors are forgiven where it is. That is **UKD**, uncertainty-driven knowledge
# distillation.
#
# Take one number. The teacher says 3, the student says 2 and adds a $\sigma$, the size of error
# that it expects of itself. It pays for two things, half of each:
#
# - the squared error over $\sigma^2$: being wrong costs, and costs less when you warned of it
# - $\ln \sigma^2$: warning costs as well

# %% tags=["core"]
error = 3.0 - 2.0
print(" sigma   error term   log term    both")
for sigma in (0.1, 0.5, 1.0, 2.0, 10.0):
    first, second = error**2 / sigma**2 / 2, np.log(sigma**2) / 2
    print(f"{sigma:6.1f} {first:12.2f} {second:10.2f} {first + second:7.2f}")

# %% [markdown] tags=["core"]
# **Guess first.** The paper writes that the term with the logarithm keeps $\sigma$ from becoming
# too *small*. Is that so? Which of the two terms forbids $\sigma \to 0$, and which
# $\sigma \to \infty$? The figure draws each of them alone, for the same error of 1.

# %% tags=["core"]
theta = torch.linspace(-3, 3, 601)
terms = {"error term": torch.exp(-theta) / 2, "log term": theta / 2}
terms["both"] = terms["error term"] + terms["log term"]
plots.curves(
    {name: (theta[::50], values[::50]) for name, values in terms.items()},
    xlabel="ln of sigma squared",
    ylabel="loss at an error of 1",
    ylim=(-2, 6),
    title="Left: sigma towards 0; right: towards infinity",
)
plt.show()
for name, values in terms.items():
    best = int(values.argmin())
    edge = {0: "alone it runs off to sigma = 0", 600: "alone it runs off to sigma = infinity"}
    print(f"{name:11} smallest at {theta[best]:4.1f}  {edge.get(best, '')}".rstrip())

# %% [markdown] tags=["core"]
# Without the log term the student would declare itself infinitely unsure and be forgiven
# everything: the log term keeps $\sigma$ from becoming too **large**. What keeps it from becoming
# too small is the error. The sentence has it the wrong way round; the paper's equation does not.

# %% [markdown] tags=["core"]
# ### Exercise 1
#
# *5 minutes, easy.* Which $\sigma^2$ is best? Losses of the form $d^2 / (k\,\sigma^2) +
# \ln \sigma^2$ differ in $k$: the paper's has $k = 1$ (and a factor in front of all of it), that of
# the authors' code $k = 2$. Give the $\sigma^2$ that minimises it for a squared error $d^2$.


# %% jupyter={"source_hidden": true} tags=["exercise", "solution", "core"]
def best_variance(squared: float, k: float) -> float:
    """The sigma^2 that minimises squared / (k sigma^2) + ln sigma^2."""
    # BEGIN SOLUTION
    # Stumbles: taking the derivative with respect to sigma and losing a factor of two on the way;
    # with respect to ln sigma^2 both terms are short.
    return squared / k
    # END SOLUTION


# %% tags=["check", "core"]
tried = np.exp(np.linspace(-6, 6, 120_001))
for squared, k in ((1.0, 1.0), (4.0, 2.0), (0.5, 3.0)):
    search = tried[np.argmin(squared / (k * tried) + np.log(tried))]
    found = best_variance(squared, k)
    assert abs(found / search - 1) < 1e-3, f"d^2 = {squared}, k = {k}: search says {search:.3f}"
print("Exercise 1 is solved.")

# %% [markdown] tags=["core"]
# With $k = 1$ the best variance is $d^2$: a student that has learned its $\sigma$ well says how
# large its errors *are*. With $k = 2$ it is half of that, so the authors' code asks the student to
# be surer of itself than its errors allow.
#
# ## 2. The loss
#
# Suppose that the teacher's number is the student's plus noise of a size that the student predicts,
# $x_{av} = x_{vs} + \epsilon\,\sigma$, with $\epsilon$ from a standard normal distribution.
# Then (equation 9)
#
# $$p(x_{av}) = \frac{1}{\sqrt{2 \pi \sigma^2}}\,
# \exp\left(-\frac{(x_{av} - x_{vs})^2}{2 \sigma^2}\right).$$
#
# A good student makes probable what the teacher said. Take the logarithm, turn the sign because
# optimisers minimise, and drop $\frac12 \ln 2\pi$, which is the same whatever the student does
# (equations 10 and 11). With $d = x_{av} - x_{vs}$ and $\theta = \ln \sigma^2$:
#
# $$L = \frac12 \left(d^2 e^{-\theta} + \theta\right), \qquad
# \frac{\partial L}{\partial x_{vs}} = -\frac{d}{\sigma^2}.$$
#
# A network predicts $\theta$ and not $\sigma$, because $\theta$ may be any number and nothing is
# ever divided by zero. The derivative is the whole mechanism: the student is pulled by its error
# *divided by the variance*. Here is the package's loss, and beside it the library's density, which
# knows nothing of our derivation.

# %% tags=["core"]
print(getsource(losses.ukd))
x_av = torch.tensor([1.0, 1.0, 4.0]).view(1, 3, 1)  # (B, T, D): one video, three snippets
x_vs = torch.tensor([1.0, 0.5, 1.0]).view(1, 3, 1).requires_grad_()  # right, half off, far off
sigma = torch.tensor([0.5, 0.5, 3.0]).view(1, 3, 1)  # how sure it says it is
each = [losses.ukd(x_vs[:, [t]], x_av[:, [t]], sigma[:, [t]].log() * 2) for t in range(3)]
(pull,) = torch.autograd.grad(sum(each), x_vs)
minus_log_p = -torch.distributions.Normal(x_vs, sigma).log_prob(x_av)
print("snippet  error  sigma    loss   -ln p   the difference    pull")
for t, value in enumerate(each):
    d, s, p = (x[0, t, 0].item() for x in (x_av - x_vs, sigma, minus_log_p))
    print(f"{t:7} {d:6.1f} {s:6.1f} {value:7.2f} {p:7.2f} {p - value:16.2f} {-pull[0, t, 0]:7.2f}")

# %% [markdown] tags=["core"]
# The third snippet is six times as wrong as the second and is pulled six times *less*, because the
# student had said so. (The difference is the dropped constant, 0.92.)
#
# That is good when bad targets, sharing few weights with the others, spoil their fit. Let nine
# snippets share a single number. Six of the targets lie close to the truth, which is 1; three are
# nearly worthless. There is one $\theta$ for the quiet six and one for the loud three.

# %% tags=["core"]
targets = torch.tensor([0.9, 1.1, 1.0, 0.95, 1.05, 1.0, 4.5, -1.0, 4.0]).view(1, 9, 1)
loud = torch.tensor([0] * 6 + [1] * 3)
answer = torch.zeros(1, requires_grad=True)
thetas = torch.zeros(2, requires_grad=True)  # ln sigma^2 of the quiet, and of the loud
optimiser = torch.optim.Adam([answer, thetas], lr=0.05)
for _ in range(600):
    optimiser.zero_grad()
    losses.ukd(answer.expand(1, 9, 1), targets, thetas[loud].view(1, 9, 1)).backward()
    optimiser.step()
weight = torch.exp(-thetas.detach())
print(f"plain squares: {targets.mean():.2f}; with uncertainty: {answer.item():.2f}; truth: 1")
print(f"a quiet target weighs {'over' if weight[0] > 500 * weight[1] else 'under'} 500 loud ones")

# %% [markdown] tags=["core"]
# Nobody told it which group was bad. But in this toy a *large error* and a *bad target* are the
# same thing. The loss cannot tell them apart: it takes weight from whatever it predicts badly, for
# whatever reason. In the student $\theta$ is predicted, for every snippet and channel, by a
# **head** of three convolutions over time on the encoder's output.
#
# ## 3. The two of them
#
# A target must hold still. No gradient may pull the teacher towards its student, and the teacher
# must not roll dice: its audio branch has **dropout**, which in training mode makes another target
# of the same batch every time. Whoever calls `train()` on a model that *contains* the teacher wakes
# it up without noticing. So the package wraps it:

# %% tags=["core"]
print(getsource(FrozenTeacher))
teacher, student = (shipped(store, role) for role in ("teacher", "student"))
if teacher is None or form != "paper":  # nothing of it ships: train
    how = {"form": form, "scale": scale, "dim": store.dim, "seed": seed, "epochs": epochs}
    how |= {"device": device, "selection": "holdout", "reload_best": False}
    teacher = train_or_load(make_config(**how), store, progress=False).model
    own = make_config(**how, role="vision")
    student = train_or_load(own, store, teacher=teacher, progress=False).model
teacher, student = teacher.to(where).eval(), student.to(where).eval()

batch = TrainingSet(store, store.indices("train"), student.settings).batch(torch.arange(32))
batch = batch.to(where)
frozen = FrozenTeacher(teacher).train()  # as if it were part of what is trained
target = frozen(batch)
awake = copy.deepcopy(teacher).train()
same = [torch.equal(*(one.encode(batch)[0] for _ in range(2))) for one in (awake, frozen.detector)]
print(f"twice the same target: awake {same[0]}, frozen {same[1]}; asks for gradients: ", end="")
print(any(p.requires_grad for p in frozen.parameters()))

# %% [markdown] tags=["core"]
# The student: a video encoder; an **enhancement**, one convolution over three snippets with a skip
# connection, whose output is $x_{vs}$; then the same branches and prompts. It is trained by the
# losses of 06 plus UKD, with weight 1. A rival needs no training: the teacher itself, **deaf**
# (06). Where there is no sound its fusion adds nothing (03), and everything behind it goes on. The
# three on the test videos:


# %% tags=["nbval-ignore-output", "core"]
class Deaf:
    """A store without its sound."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)

    def audio(self, row):
        return None


reports = {
    "teacher": evaluate(teacher, store),
    "teacher, deaf": evaluate(teacher, Deaf(store)),
    "student": evaluate(student, store),
}
MEASURES = {"AP, classification": "frame_ap_classification", "mean mAP": "map_anomaly"}
for name, report in reports.items():
    ap, mean_ap = (report.metrics.get(m, np.nan) for m in MEASURES.values())
    print(f"{name:16} AP {ap:5.1%}, mean mAP {mean_ap:5.1%}")
    record("frame_ap", ap, dataset=dataset, detector=name, branch="classification", split="test")

# %% [markdown] tags=["core"]
# From the first row to the second is what sound is worth to this teacher: little in AP, a third of
# its mAP. The student, which never heard anything, has about half of that third back. These are two
# networks, not two methods; section 7 has more seeds.
#
# ## 4. Beside its teacher
#
# What does the student follow? Above, confidences in the three running examples; below, per snippet
# and as a mean over channels, the squared error that the student **makes** and the $\sigma^2$ that
# it had **announced**. Guess first: in *sound saves* the first crash goes on being heard while the
# film shows something else. Will the error rise there? Will the announcement?


# %% tags=["nbval-ignore-output", "core"]
@torch.no_grad()
def side_by_side(rows):
    """Per row: confidences of teacher and student (T,), squared error and variance (T, D)."""
    bags, found = TrainingSet(store, rows, student.settings), []
    for index in torch.arange(len(bags)).split(32):
        some = bags.batch(index).to(where)
        theirs, own = teacher(some), student(some)
        square = (theirs.features - own.features) ** 2
        columns = (theirs.confidence, own.confidence, square, own.log_variance.exp())
        for b, n in enumerate(some.lengths.tolist()):
            found.append([x[b, :n].cpu().numpy() for x in columns])
    return found


fig, axes = plt.subplots(2, 3, figsize=(plots.WIDTH, 4.4), sharex="col", sharey="row")
looks = ({"color": plots.MODEL, "lw": 2}, {"color": plots.BASELINE, "ls": "--", "lw": 2})
for (above, below), (role, row) in zip(axes.T, running.items(), strict=True):
    ((theirs, own, square, variance),) = side_by_side([row])
    seconds = store.frames[row] / FPS
    edges = np.linspace(0, seconds, len(own) + 1)
    made, told = square.mean(axis=1), variance.mean(axis=1)
    for ax, pair in ((above, (theirs, own)), (below, (made, told))):
        for values, look in zip(pair, looks, strict=True):
            ax.stairs(values, edges, baseline=None, **look)
        plots.shade(ax, store.segments(row), fps=FPS)
    above.set(title=role, ylim=(-0.03, 1.03), xlim=(0, seconds))
    below.set(yscale="log", xlabel="time (s)")
    rise = np.corrcoef(made, told)[0, 1]
    print(f"{role:12} error made and announced: correlation {rise:+.2f}")
axes[0, 0].set_ylabel("confidence")
axes[1, 0].set_ylabel("squared error")
handles = axes[0, 0].patches[:2]
names = ["teacher; error made", "student; error announced"]
fig.legend(handles, names, frameon=False, fontsize="small", loc="outside lower center", ncols=2)
plt.show()

# %% [markdown] tags=["core"]
# In *sound saves* the error rises several times over while the crash is heard, and the announcement
# does not move: wrong without a warning, as wherever amber lies under blue. In *many labels* the
# teacher comes down between events and the student stays up.
#
# Three videos are anecdotes, but 06 has asked all test videos (its section 4). On events that are
# *only heard* the teacher is far ahead, and the student not much better than the deaf teacher: it
# has pictures only, and what it gets there comes from what surrounds an event. On those *only
# seen*, both that do not listen are ahead of the teacher.

# %% [markdown]
# ## 5. What sigma knows
#
# UKD was meant for features that "noisy audio or occluded visual content" has distorted: those
# should pull less. Has the student's $\sigma$ learned that? Two questions. First, is it an honest
# size of error? Sort all features of all snippets of test videos into ten groups by predicted
# variance; compare each group's mean with the squared error that is really made there. An honest
# one lies on the diagonal.

# %% tags=["nbval-ignore-output"]
looked = test[store.snippets[test] <= student.max_snippets][:400]  # whole, in one pass
inside = np.repeat(np.isin(test, looked), store.snippets[test])  # their snippets
_, _, square, variance = (np.concatenate(x) for x in zip(*side_by_side(looked), strict=True))
groups = np.array_split(np.argsort(variance, axis=None), 10)
told, made = ([x.ravel()[one].mean() for one in groups] for x in (variance, square))
fig, ax = plt.subplots(figsize=(plots.WIDTH * 0.45, 3.2))
ends = [min(*told, *made) / 1.5, max(*told, *made) * 1.5]
ax.plot(ends, ends, color="#999999", ls=":")
ax.plot(told, made, "o-", color=plots.MODEL)
ax.set(xscale="log", yscale="log", xlabel="variance announced", ylabel="squared error made")
ax.tick_params(which="minor", labelbottom=False, labelleft=False)
plt.show()
print("announced", " ".join(f"{value:6.2f}" for value in told))
print("made     ", " ".join(f"{value:6.2f}" for value in made))

# %% [markdown]
# It is: over a factor of ten the student is about as wrong as it announced.
#
# Second: unsure *where*? Give each snippet one number, its mean $\theta$, and ask how well it ranks
# the snippets of one kind above all others (AUC, 00: 0.5 is no relation). Beside it the same for
# the error really made, which a perfect $\sigma$ would equal and only the teacher reveals. The
# third column is the consequence: the mean pull $1/\sigma^2$, as a multiple of its mean over all
# snippets.

# %% tags=["nbval-ignore-output"]
positive, _ = snippet_truth(store.frame_truth(test), store.snippets[test], store.stride)
kinds = {"an event": positive >= store.stride / 2}
if {"anomalous", "visible", "audible"} <= set(store.flag_names):
    flags = [store.flags(row) for row in test]
    event, seen, heard = (
        np.concatenate([one[name] for one in flags]) for name in ("anomalous", "visible", "audible")
    )
    kinds |= {"only seen": event & seen & ~heard, "seen and heard": event & seen & heard}
    kinds["only heard"] = event & heard & ~seen
unsure, wrong = np.log(variance).mean(axis=1), square.mean(axis=1)
pull, rows = (1 / variance).mean(axis=1), {}
for name, here in kinds.items():
    yes = here[inside].astype(int)
    aucs = [roc_auc(x, yes, 1 - yes) for x in (unsure, wrong)]
    rows[name] = dict(zip(("AUC of sigma", "AUC of the error"), aucs, strict=True))
    rows[name] |= {"pull": pull[yes > 0].mean() / pull.mean(), "snippets": yes.sum()}
print(pd.DataFrame(rows).T.astype({"snippets": int}).to_string(float_format="{:.2f}".format))

# %% [markdown]
# The idea asks for a high AUC at *only heard*, where pictures cannot tell. But $\sigma$ is computed
# from pictures: who cannot see something cannot see *that* it is missing, either. There its AUC is
# near 0.5 (the error's own is little more). And the pull at events is below 1: training takes
# weight from the very snippets that this detector is for. In the toy of section 2 a large error was
# a bad target; here it may be the interesting one. Features spoilt on purpose: [lab
# note](studies/sigma_and_corruption.ipynb).

# %% [markdown] tags=["core"]
# ## 6. A placebo
#
# Suppose that a taught student is ahead of one that was left alone. Was it the *teaching*? It also
# has a head, and with it other random numbers at its start, which alone move an AP. Medicine knows
# what to do: give the other group a pill with everything but the substance.
#
# Here the pill is a weight. At $10^{-8}$ (the weight in the authors' code; the paper tells none)
# the student has its head, its teacher and its loss, and the teaching is multiplied away. Or is it?
# Adam divides each gradient by its own size, so a tiny gradient may make a full step. Guess first,
# then look at one batch of 32 training videos and a fresh student:
#
# - **The trunk** (encoder and enhancement) gets two gradients: from the student's own losses, and
#   from imitation. Only their ratio counts.
# - **The head** gets only the second. It makes full steps unless its gradients are smaller than the
#   $10^{-8}$ that Adam adds to the divisor: the first step of a weight with gradient $g$ is
#   $|g| / (|g| + 10^{-8})$ of a full one.

# %% tags=["nbval-ignore-output", "core"]
FORMS = {
    "paper's form": {"ukd": "paper", "variance_head": "free", "ukd_mask": True},
    "code's form": {"ukd": "released", "variance_head": "bounded", "ukd_mask": False},
}


def fresh(weight, form="paper's form"):
    """An untrained student, the same for every weight."""
    torch.manual_seed(seed)
    settings = student.settings.override(ukd_weight=weight, **FORMS[form])
    return build(settings, tower, prompts, classes=store.classes).to(where).train()


def losses_of(model):
    """The parts of its loss on the batch, with the teacher's targets."""
    return model.loss(replace(model(batch), teacher_features=target), batch)


def gradient(loss, weights):
    every = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in every])


rows = {}
for form_of, weight in [("paper's form", w) for w in (1.0, 1e-4, 1e-8)] + [("code's form", 1e-8)]:
    model = fresh(weight, form_of)
    parts, named = losses_of(model), dict(model.named_parameters())
    trunk = [p for k, p in named.items() if k.startswith(("encoder.", "enhancement."))]
    theirs = weight * gradient(parts["ukd"], trunk)
    own = gradient(parts["total"] - weight * parts["ukd"], trunk)
    g = weight * gradient(parts["ukd"], list(model.log_variance.parameters())).abs().median()
    rows[form_of, f"{weight:g}"] = {
        "trunk: imitation / own": f"{theirs.norm() / own.norm():.1g}",
        "head: of a full step": f"{g / (g + 1e-8):.1%}",
    }
print(pd.DataFrame(rows).T.rename_axis(["", "weight"]).to_string())

# %% [markdown] tags=["core"]
# In the paper's form $10^{-8}$ is a placebo: the trunk does not feel the teacher, and of the head's
# steps little is left.
#
# The last line is a warning. In the code's form the same weight is another dose, because there the
# loss itself is huge. Its head says $\theta = -(y + \mathrm{ReLU}(\ldots))$ with the encoder's
# output $y$, so $\theta \le -y$: where $y$ is large, $\sigma^2$ starts near zero, and errors are
# divided by it. How much gets through depends on the features, so this number is Soundstage's.
#
# So let twelve steps happen, on the same batch from the same start. How far
# from where it gets *without* a teacher does the encoder arrive, as a share of the way?


# %% tags=["nbval-ignore-output", "core"]
def arrived(weight, steps=12):
    """The encoder's weights after so many steps on the batch."""
    model = fresh(weight)
    (optimiser,) = model.optimizers()
    for _ in range(steps):
        optimiser.zero_grad()
        losses_of(model)["total"].backward()
        optimiser.step()
    return torch.cat([p.detach().flatten() for p in model.encoder.parameters()])


start, alone = (arrived(0.0, steps) for steps in (0, 12))
for weight in (1.0, 1e-4, 1e-8):
    apart = (arrived(weight) - alone).norm() / (alone - start).norm()
    print(f"weight {weight:<6g} {apart:8.3%} of the way apart from the student without a teacher")

# %% [markdown] tags=["core"]
# At $10^{-8}$ the encoder goes where it would go without a teacher. Such a student *is* the one
# that was left alone, but for the random numbers at its start.
#
# ## 7. Is it the teaching?
#
# The study trains two students, one only hearing, on several seeds and teachers: left alone, taught
# by UKD, taught by plain squares (MSE), and with the placebo, each at the learning rate that its
# own grid chose. They are compared seed by seed: the mean of the differences and its 95 % interval
# (08 says why). Each comparison answers another question:
#
# - UKD against **no teacher**: the paper's claim, and the only one of these in its table
# - UKD against the **placebo**: is it the teaching?
# - UKD against **plain squares**: is it the uncertainty?
# - the **placebo against no teacher**: how far does luck reach?

# %% tags=["main-figure", "nbval-ignore-output", "core"]
# What distillation buys both students, and against what: paired differences over the study's seeds
# with 95 % intervals. Only what is clear of zero was shown.
main = study.results("main")
source = dataset if set(main["store"]) == {store.digest} else "another store"
QUESTIONS = {
    "UKD against no teacher": (", UKD", ""),
    "UKD against the placebo": (", UKD", ", placebo"),
    "UKD against plain squares": (", UKD", ", MSE"),
    "the placebo against no teacher": (", placebo", ""),
}
labels = [f"{sense}: {question}" for sense in ("vision", "audio") for question in QUESTIONS]
fig, axes = plt.subplots(1, 2, figsize=(plots.WIDTH, 3.4), sharey=True)
for ax, (shown, measure) in zip(axes, MEASURES.items(), strict=True):
    ax.axvline(0, color=plots.INK, lw=1)
    print(f"{shown}, {source}")
    for place, label in enumerate(labels):
        sense, question = label.split(": ")
        pair = [f"{sense} only{suffix}" for suffix in QUESTIONS[question]]
        rows = main[main["row"].isin(pair)].dropna(subset=[measure])
        seeds = int(rows.groupby("seed")["row"].nunique().eq(2).sum())
        if seeds < 2:
            print(f"  {label:40} {seeds} seeds in the file: no interval yet")
            at = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": "x-small"}
            ax.text(0.02, place, "not in the file yet", backgroundcolor="white", **at)
            continue
        gap = study.paired(rows, *pair, measure)
        colour = "#8C8C8C" if gap.verdict == "not distinguishable" else plots.MODEL
        ax.plot([gap.low, gap.high], [place] * 2, color=colour, lw=4)
        ax.plot(gap.mean, place, "o", color=colour, ms=7, mec="white")
        told = f"{gap.mean:+5.1f} [{gap.low:+.1f}, {gap.high:+.1f}] of {seeds} seeds"
        rates = [rows.loc[rows["row"] == one, "rate"].iloc[0] for one in pair]
        told += "" if rates[0] == rates[1] else f", rates {rates[0]:g} and {rates[1]:g}"
        print(f"  {label:40} {told}: {gap.verdict}")
    ax.set(xlabel=f"points of {shown}, {source}", ylim=(len(labels) - 0.4, -0.6))
axes[0].set_yticks(range(len(labels)), labels, fontsize="x-small")
plt.show()

# %% [markdown] tags=["core"]
# Blue intervals are clear of zero, grey ones say neither yes nor no; left of zero the second-named
# is ahead. Read the four lines of a student together. If the first is blue on the right and the
# second is not, a gain was shown and its cause was not. If both are, it is the teaching. Unless the
# third is, too, plain squares may do as well: distillation was shown, not uncertainty. On
# Soundstage, for both students, the first two are blue and the third is not. (Uncorrected, vision's
# at unequal rates: 08 leaves the first open.)
#
# And if it is the teaching, is it the teacher's *ears*? Left alone, a student learns from one label
# a video; taught, it gets a vector for every snippet, from a network that has sorted them out
# already.

# %% [markdown]
# ### Exercise 2
#
# *12 minutes, hard.* **Open.** Is it the hearing? Design a control: change a copy of the trained
# teacher into one from which a student can learn anything *but* what was heard. A student is
# trained from it with the settings and the seed of the one above, and tested beside it. Before you
# run it, write down which difference would convince you, of what, and how many seeds it would take.
# (The fusion adds `gate * residual_out(...)` to what is seen. There are other ways.)


# %% jupyter={"source_hidden": true} tags=["exercise", "solution"]
def control(teacher):
    """A changed copy of the teacher, an audio-visual detector; the teacher stays as it is."""
    other = copy.deepcopy(teacher)
    # BEGIN SOLUTION
    # Stumbles: deafening its audio encoder only, whose biases would still reach the fusion. Here
    # the fusion adds nothing to what is seen, ever.
    with torch.no_grad():
        other.fusion.residual_out.weight.zero_()
        other.fusion.residual_out.bias.zero_()
    return other
    # END SOLUTION


# %% tags=["check", "nbval-ignore-output"]
before = {key: value.clone() for key, value in teacher.trainable_state().items()}
guide = control(teacher)
assert guide is not teacher, "a control needs a teacher of its own: work on a copy"
after = teacher.trainable_state()
assert all(torch.equal(before[key], after[key]) for key in before), "the teacher was changed"
settings = student.settings.override(device=device)
other = train_or_load(settings, store, teacher=guide, progress=False).model.to(where)
reports["student of the control"] = evaluate(other, store)
for name, report in reports.items():
    ap, mean_ap = (100 * report.metrics.get(m, np.nan) for m in MEASURES.values())
    print(f"{name:24} AP {ap:5.1f}, mean mAP {mean_ap:5.1f}")
print("Exercise 2 is measured: one seed, which convinces nobody.")

# %% [markdown] tags=["core"]
# The scoreboard gets two bars, the students. Beside the teacher's they say what a microphone is
# worth, and what is left of it when it is gone.

# %% tags=["nbval-ignore-output", "core"]
scoreboard(study.results(), upto="07", data=source)
plt.show()

# %% [markdown] tags=["core"]
# ## Recap
#
# - say which term of the distillation loss forbids small sigmas, and which large ones: the error
#   term small ones, the log term large ones; the best variance is the squared error.
# - derive that loss, and show from whom it takes weight away: a Gaussian's $-\ln p$; each error
#   pulls with $d / \sigma^2$, so whatever is predicted badly weighs less, for whatever reason.
# - put a student beside its teacher and see what it follows and what it cannot: it follows what can
#   be seen, and is ahead only where nothing is to be heard; what is only heard stays nearly out of
#   reach.
# - test what a predicted sigma knows: the size of its errors, honestly; where they are, only as far
#   as pictures tell.
# - make a placebo, and show before any training that it is one: a weight of $10^{-8}$, in the
#   paper's form; the trunk goes where it would go without a teacher.
# - say for both students what distillation buys, and against what: no teacher, plain squares,
#   placebo; only an interval clear of zero is an answer, and each of the three to another question.
#
# [08](08_ablations.ipynb) asks of every part of the detector what this lesson asked of
# distillation: what does it buy, over seeds?
