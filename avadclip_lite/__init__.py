"""avadclip_lite: an educational reproduction of AVadCLIP (arXiv 2504.04495)."""

__version__ = "0.1.0"
