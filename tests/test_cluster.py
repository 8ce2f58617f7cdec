"""The Dask route on a real local cluster; needs the optional extra "dask"."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from clips import clip_wave, flat, write_clip

from avadclip_lite.dataset import FeatureStore
from avadclip_lite.video import folder as folders
from avadclip_lite.video.folder import extract_folder

distributed = pytest.importorskip("distributed", reason='needs pip install "avadclip-lite[dask]"')


def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(tmp_path, monkeypatch):
    films = tmp_path / "films"
    films.mkdir()
    for k in range(12):
        write_clip(
            films / f"{k:02d}_label_B1.mp4",
            seconds=12,
            size=(32, 32),
            picture=lambda n, k=k: flat(20 * k + n % 16, (32, 32)),
            wave=clip_wave(12, 16000, [1.0 + k / 10], noise=0.01),
            sample_rate=16000,
        )
    (films / "99.mp4").write_text("no video")
    choices = {"weights": "random", "device": "cpu", "progress": False}
    extract_folder(films, tmp_path / "alone", **choices)

    killed: list[int] = []
    real = folders.ResultLog.add
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:

        def add(self, *args):
            real(self, *args)
            if not killed:  # the others are being worked on
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)

        monkeypatch.setattr(folders.ResultLog, "add", add)
        summary = extract_folder(
            films,
            tmp_path / "cluster",
            backend="dask",
            address=cluster.scheduler_address,
            **choices,
        )
    assert killed and len(summary.done) == 12 and set(summary.set_aside) == {"99"}
    alone, shared = (FeatureStore.open(tmp_path / name) for name in ("alone", "cluster"))
    assert [row.name for row in shared.videos] == [row.name for row in alone.videos]
    for i in range(12):
        np.testing.assert_allclose(shared.video(i), alone.video(i), atol=2e-5)
        np.testing.assert_allclose(shared.audio(i), alone.audio(i), atol=2e-5)
