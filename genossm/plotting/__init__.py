"""Pictures from arrays: each function takes numbers and returns a matplotlib Figure. Needs the extra `plot`."""

from genossm.plotting.bases import bits_along_region, bits_comparison
from genossm.plotting.context import ContextCurve, bits_by_context
from genossm.plotting.figures import save_figure, to_png, to_svg
from genossm.plotting.logo import information_content, sequence_logo
from genossm.plotting.saturation import saturation_map
from genossm.plotting.training import learning_curve
from genossm.plotting.variants import roc_curves, scores_by_frequency

__all__ = [
    "ContextCurve",
    "bits_along_region",
    "bits_by_context",
    "bits_comparison",
    "information_content",
    "learning_curve",
    "roc_curves",
    "saturation_map",
    "save_figure",
    "scores_by_frequency",
    "sequence_logo",
    "to_png",
    "to_svg",
]
