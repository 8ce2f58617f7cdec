"""The seam: detectors that know nothing of AVadCLIP are trained, saved, loaded and evaluated."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_settings, tiny_store
from torch import nn

from avadclip_lite import model as model_module
from avadclip_lite import train as train_module
from avadclip_lite.evaluate import evaluate, predict_store
from avadclip_lite.losses import topk_bce
from avadclip_lite.model import Detector, Output, register
from avadclip_lite.temporal import length_mask
from avadclip_lite.train import fit, load


@register("toy")
class Toy(Detector):
    """A linear score a snippet, and Top-K binary cross-entropy: a detector in 25 lines."""

    def __init__(self, settings, context):
        super().__init__(settings)
        self.score = nn.Linear(settings.model.dim, 1)

    def forward(self, batch):
        logits = self.score(batch.video).squeeze(-1)
        return Output(anomaly_logits=logits, mask=length_mask(batch.lengths, batch.snippets))

    def loss(self, output, batch):
        anomalous = 1 - batch.labels[:, 0]
        return {"total": topk_bce(output.anomaly_logits, anomalous, batch.lengths)}


@register("two_stages")
class TwoStages(Toy):
    """Paired batches, pseudo labels from the second stage on, weights averaged over epochs, two
    optimisers: every hook at once."""

    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.bias = nn.Parameter(torch.zeros(1))
        self.pseudo: torch.Tensor | None = None  # (bags,) confidence at the end of stage one
        self.average: dict[str, torch.Tensor] = {}

    def forward(self, batch):
        output = super().forward(batch)
        return Output(anomaly_logits=output.anomaly_logits + self.bias, mask=output.mask)

    def loss(self, output, batch):
        parts = super().loss(output, batch)
        if self.pseudo is not None:
            mean = (output.confidence * output.mask).sum(1) / batch.lengths
            parts["pseudo"] = (mean - self.pseudo[batch.index]).square().mean()
            parts["total"] = parts["total"] + parts["pseudo"]
        return parts

    def optimizers(self):
        rate = self.settings.train.learning_rate
        return [
            torch.optim.Adam(self.score.parameters(), lr=rate),
            torch.optim.SGD([self.bias], lr=10 * rate, momentum=0.9),
        ]

    def batches(self, bags, generator):
        normal, anomalous = (torch.nonzero(bags.labels[:, 0] == y).flatten() for y in (1, 0))
        halves = [x[torch.randperm(len(x), generator=generator)][:8] for x in (normal, anomalous)]
        return [torch.cat(pair) for pair in zip(*(h.split(4) for h in halves), strict=True)]

    def start_epoch(self, epoch, bags):
        if epoch == 2:  # the second stage
            with torch.no_grad():
                everything = bags.batch(torch.arange(len(bags)))
                output = self(everything)
                total = (output.confidence * output.mask).sum(1)
                self.pseudo = total / everything.lengths

    def end_epoch(self, epoch):
        now = {k: v.detach().clone() for k, v in self.state_dict().items()}
        self.average = {k: (v + self.average.get(k, v)) / 2 for k, v in now.items()}
        self.load_state_dict(self.average)

    def training_state(self):
        state = {f"average.{k}": v for k, v in self.average.items()}
        return state if self.pseudo is None else state | {"pseudo": self.pseudo}

    def load_training_state(self, state):
        state = dict(state)
        self.pseudo = state.pop("pseudo", None)
        self.average = {k.removeprefix("average."): v for k, v in state.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("data") / "tiny")


def settings(name, **choices):
    return tiny_settings(detector=name, **{"epochs": 4, "learning_rate": 0.05} | choices)


@pytest.mark.parametrize("name", ["toy", "two_stages"])
def test_a_foreign_detector_is_trained_saved_loaded_and_evaluated(store, tmp_path, name) -> None:
    result = fit(settings(name, epochs=12), store, out=tmp_path / "run", progress=False)
    model = load(tmp_path / "run")
    assert type(model) is type(result.model) and model.classes == store.classes
    report = evaluate(model, store)
    # the anomalous third stands out in one of six channels: a linear score finds some of it
    assert report.metrics["frame_ap_classification"] > report.metrics["positive_share"]
    assert "frame_ap_alignment" not in report.metrics and report.map_result is None
    rows = store.indices("test")
    one, other = (predict_store(m, store, rows) for m in (result.model, model))
    assert (one.anomaly_logits == other.anomaly_logits).all() and one.alignment is None
    assert {"holdout_ap", "total"} <= result.history[0].keys()


def test_an_interrupted_two_stage_training_goes_on_exactly(store, tmp_path, monkeypatch) -> None:
    whole = fit(settings("two_stages"), store, progress=False)
    assert "pseudo" not in whole.history[1] and "pseudo" in whole.history[2]

    class Stop(Exception):
        pass

    original = train_module.TrainingRun.save

    def stop(self, folder):
        original(self, folder)
        if self.epoch == 3:
            raise Stop

    monkeypatch.setattr(train_module.TrainingRun, "save", stop)
    with pytest.raises(Stop):
        fit(settings("two_stages"), store, out=tmp_path / "run", progress=False)
    monkeypatch.undo()
    rest = fit(settings("two_stages"), store, out=tmp_path / "run", progress=False)
    assert [e["total"] for e in rest.history] == [e["total"] for e in whole.history]
    theirs = whole.model.trainable_state()
    assert all(torch.equal(v, theirs[k]) for k, v in rest.model.trainable_state().items())


def test_paired_batches_hold_as_many_normal_as_anomalous_bags(store, monkeypatch) -> None:
    shares = []
    original = TwoStages.loss

    def spy(self, output, batch):
        shares.append(float(batch.labels[:, 0].mean()))
        return original(self, output, batch)

    monkeypatch.setattr(TwoStages, "loss", spy)
    fit(settings("two_stages"), store, progress=False)
    assert set(shares) == {0.5}


def test_a_detector_that_is_not_registered_is_named_with_the_remedy(store, tmp_path) -> None:
    fit(settings("toy", epochs=1), store, out=tmp_path / "run", progress=False)
    kind = model_module._DETECTORS.pop("toy")
    try:
        with pytest.raises(ValueError, match=r"registered as 'toy', only avadclip.*import"):
            load(tmp_path / "run")
    finally:
        model_module._DETECTORS["toy"] = kind


def test_a_detector_that_cannot_distil_says_so(store) -> None:
    with pytest.raises(ValueError, match="toy detector cannot learn from a teacher"):
        Toy(settings("toy"), None).distil_from(Toy(settings("toy"), None))
