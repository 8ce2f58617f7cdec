"""Copy the two trained detectors that ship out of the study that trained them.

    python tools/ship_models.py [--study data/studies/soundstage.csv] [--out data/soundstage/models]

The teacher is the row "paper" of the seed whose classification AP is the lower median of all seeds
in the file, the student its vision-only student of the same seed. Both are taken from the cache of
trained models, or trained again. ``index.json`` says which they are and where they rank.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pandas as pd  # noqa: E402

from avadclip_lite.config import soundstage_path  # noqa: E402
from avadclip_lite.dataset import FeatureStore  # noqa: E402
from avadclip_lite.experiments import study  # noqa: E402
from avadclip_lite.train import CONFIG, WEIGHTS  # noqa: E402

ROLES = {"teacher": "paper", "student": "vision, UKD x 1"}
MEASURE = "frame_ap_classification"


def lower_median(values: pd.Series) -> int:
    """The index (a seed) of the lower median of ``values``."""
    return int(values.sort_values(kind="stable").index[(len(values) - 1) // 2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--study", type=Path, default=study.results_path())
    parser.add_argument("--out", type=Path, default=soundstage_path() / "models")
    options = parser.parse_args()
    store = FeatureStore.open(soundstage_path())
    frame = study.results(path=options.study).set_index(["variant", "seed"])
    seed = lower_median(frame.loc[ROLES["teacher"], MEASURE])
    told = {}
    for role, variant in ROLES.items():
        values = frame.loc[variant, MEASURE]
        task = study.Task(
            variant=variant,
            seed=seed,
            data=str(store.path),
            scale="soundstage",
            rates=study.chosen_rates(options.study),
        )
        run = study.trained(task, store).out
        folder = options.out / role
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / WEIGHTS, folder / WEIGHTS)
        known = json.loads((run / CONFIG).read_text(encoding="utf-8"))
        known["store"]["path"] = "data/soundstage"  # where it is in any clone
        (folder / CONFIG).write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        told[role] = {
            "variant": variant,
            "seed": seed,
            "seeds": len(values),
            "rank": int((values > values[seed]).sum()) + 1,
            MEASURE: float(values[seed]),
        }
    text = json.dumps(told, indent=1) + "\n"
    (options.out / "index.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
