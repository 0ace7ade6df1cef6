"""The report page's section on variants, from the JSON file of `genossm evaluate variants`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genossm.evaluation.bootstrap import interval_text
from genossm.evaluation.report_page import Picture, Section
from genossm.plotting import roc_curves, scores_by_frequency, to_svg


def variants_section(content: Mapping[str, Any]) -> Section:
    """Scores by allele frequency, and common against rare alleles."""
    results = content["results"]
    score, bootstrap = content["score"], content["bootstrap"]
    letters = f"over at most {score['horizon']} letters" if "horizon" in score else "of the bases behind [MASK]"
    strands = "the mean of both strands" if score["both_strands"] else "the plus strand"
    unscored = sum(content["unscored"].values())
    what = (
        f"{content['alleles']:,} scored alleles of {content['region']} ({unscored:,} without a score, "
        f"{content['without_frequency']:,} without a frequency). The score is the log-likelihood ratio of ALT against "
        f"REF in nats, on {strands}, {letters}, in windows of {score['context']} bases; "
        "positive: the model finds ALT likelier."
    )
    how = (
        f"Common: ALT frequency of at least {content['common_at_least']:.0%}; rare: at most "
        f"{content['rare_at_most']:.1%}. {content['note']} Intervals of 95 % from {bootstrap['replicates']:,} draws "
        f"of whole blocks of {bootstrap['block']:,} bases."
    )
    return Section(
        "Variants" if "horizon" in score else "Variants, by the masked model",
        [what, how],
        verdict=content["sentence"],
        header=("alleles", "method", "AUROC", "95 % interval", "common", "rare"),
        rows=[_row(result, method) for result in results for method in result["methods"]],
        pictures=_pictures(results[0]),
    )


def _row(result: Mapping[str, Any], method: Mapping[str, Any]) -> tuple[str, ...]:
    counts = f"{result['common']:,}", f"{result['rare']:,}"
    if method["auroc"] is None:
        return result["kind"], method["name"], "none", "", *counts
    return result["kind"], method["name"], f"{method['auroc']:.3f}", interval_text(method["interval"], ".3f"), *counts


def _pictures(result: Mapping[str, Any]) -> list[Picture]:
    model = result["methods"][0]
    bins = [one for one in model["bins"] if one["n"]]
    by_frequency = scores_by_frequency(
        [one["label"] for one in bins],
        [one["n"] for one in bins],
        [tuple(one["quantiles"]) for one in bins],
        score_name="log-likelihood ratio (nats)",
    )
    pictures = [
        Picture(
            to_svg(by_frequency, title="Score by allele frequency"),
            f"Scores of {result['kind']}s by the frequency of ALT: median, quartiles, 5 and 95 %.",
        )
    ]
    curves = {
        method["name"]: (method["roc"]["false_positive"], method["roc"]["true_positive"])
        for method in result["methods"]
        if method["roc"]
    }
    if curves:
        figure = roc_curves(curves, model=model["name"])
        pictures.append(
            Picture(to_svg(figure, title="Common against rare"), "Common against rare; the diagonal is chance.")
        )
    return pictures
