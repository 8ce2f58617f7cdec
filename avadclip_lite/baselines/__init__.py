"""The systems that the paper compares with."""

from avadclip_lite.baselines import (  # noqa: F401
    avvd_style,
    cupl,
    deepmil,
    fvai,
    hl_net,
    macil_sd,
    rtfm,
    ur_dmu,
)
