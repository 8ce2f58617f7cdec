"""The paper's numbers, in percent, and nothing of ours: arXiv 2504.04495, tables 1 to 6.

All were measured by its authors on XD-Violence or CCTV-Fights_sub. Set beside numbers of other
data they are a reminder of what was claimed, not a comparison.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ABLATION", "CCTV_AP", "DISTILLATION", "FUSION", "XD_AP", "XD_MAP", "Pair"]


class Pair(NamedTuple):
    """Frame AP, and mAP averaged over IoU 0.1 to 0.5."""

    ap: float
    map: float


# Table 1: XD-Violence, frame-level AP. The star marks vision only.
XD_AP = {
    "DeepMIL": 75.18,
    "HL-Net (Wu et al.)": 80.00,
    "RTFM": 78.27,
    "AVVD": 78.10,
    "Ju et al.": 76.57,
    "DMU": 82.41,
    "CLIP-TSA": 82.17,
    "VadCLIP": 84.51,
    "AVadCLIP*": 85.53,
    "FVAI": 81.69,
    "MACIL-SD": 81.21,
    "CUPL": 81.43,
    "AVCL": 81.11,
    "AVadCLIP": 86.04,
}

# Table 2: XD-Violence, mAP at IoU 0.1, 0.2, 0.3, 0.4, 0.5, and their average.
XD_MAP = {
    "Random": (1.82, 0.92, 0.48, 0.23, 0.09, 0.71),
    "DeepMIL": (22.72, 15.57, 9.98, 6.20, 3.78, 11.65),
    "AVVD": (30.51, 25.75, 20.18, 14.83, 9.79, 20.21),
    "VadCLIP": (37.03, 30.84, 23.38, 17.90, 14.31, 24.70),
    "AVadCLIP*": (39.63, 32.77, 26.84, 21.58, 16.39, 27.44),
    "AVadCLIP": (41.89, 34.61, 27.08, 22.16, 17.30, 28.61),
}

# Table 3: CCTV-Fights_sub, frame-level AP.
CCTV_AP = {
    "VadCLIP": 72.78,
    "AVadCLIP*": 73.36,
    "MACIL-SD": 72.92,
    "DMU": 72.97,
    "AVCL": 73.20,
    "AVadCLIP": 73.38,
}

# Table 4: parts added one by one, XD-Violence. The paper does not say what its baseline fuses.
ABLATION = {
    "baseline": Pair(79.85, 27.89),
    "+ fusion": Pair(82.90, 26.63),
    "+ audio-visual prompt": Pair(86.18, 26.79),
    "+ focal loss": Pair(86.04, 28.61),
}

# Table 5: kinds of fusion, XD-Violence.
FUSION = {
    "cross attention": Pair(75.15, 10.51),
    "addition": Pair(83.02, 27.66),
    "concatenation": Pair(83.36, 28.88),
    "adaptive": Pair(86.04, 28.61),
}

# Table 6: students without and with uncertainty-driven distillation, XD-Violence.
DISTILLATION = {
    "audio only": Pair(50.89, 12.20),
    "audio only, UKD": Pair(52.51, 13.50),
    "vision only": Pair(84.60, 22.92),
    "vision only, UKD": Pair(85.53, 27.44),
    "audio-visual": Pair(86.04, 28.61),
}
