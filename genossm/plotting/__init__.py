"""Pictures from arrays: each function takes numbers and returns a matplotlib Figure. Needs the extra `plot`."""

from genossm.plotting.bases import bits_along_region, bits_comparison
from genossm.plotting.figures import to_png, to_svg
from genossm.plotting.training import learning_curve
from genossm.plotting.variants import roc_curves, scores_by_frequency

__all__ = [
    "bits_along_region",
    "bits_comparison",
    "learning_curve",
    "roc_curves",
    "scores_by_frequency",
    "to_png",
    "to_svg",
]
